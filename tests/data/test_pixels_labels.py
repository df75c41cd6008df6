"""Labels in the cache that no class has: the split is decoded again, with a warning."""

import logging

import made_up.tasks
import numpy as np
import pytest
from made_up.tasks import SIZE
from torchvision.transforms.v2 import functional

from tsv_bench.data import cache, load_split


def load(task, folder):
    cache._opened.clear()
    to_pixels = functional.pil_to_tensor
    return load_split(task, "test", folder=folder, image_size=SIZE, to_pixels=to_pixels)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda labels: np.where(np.arange(len(labels)) == 1, 99, labels), "the label 99, where"),
        (lambda labels: labels - 100, "its classes allow 0 to"),
        (lambda labels: labels[1:], "int64 labels of shape"),
        (lambda labels: labels.astype(float), "float64 labels of shape"),
        (lambda labels: labels[:, None], "int64 labels of shape"),
        (lambda labels: np.array([None] * len(labels)), "Object arrays cannot be loaded"),
    ],
)
def test_labels_that_no_class_has_are_found(spoil, said, tmp_path, caplog):
    task = made_up.tasks.task()
    labels = load(task, tmp_path).labels.tolist()
    (path,) = tmp_path.rglob("test.npz")
    with np.load(path) as arrays:
        content = dict(arrays)
    np.savez(path, **content | {"labels": spoil(content["labels"])})
    with caplog.at_level(logging.WARNING):
        assert load(task, tmp_path).labels.tolist() == labels
    assert "are damaged" in caplog.text and said in caplog.text
    caplog.clear()
    load(task, tmp_path)
    assert not caplog.text
