"""The validation split: cut as the paper's code cuts it."""

import pytest
import torch

from tsv_bench.data import splits


def test_validation_images_are_those_of_the_paper():
    train, val = splits.train_and_val_rows(60_000)
    assert train[0] == 36044  # what the reference asserts of MNIST
    assert (len(train), len(val)) == (55_000, 5_000)


@pytest.mark.parametrize("num_images", [10, 1020, 26640, 73257])
def test_validation_images_are_cut_as_random_split_does(num_images):
    num_val = min(int(0.1 * num_images), 5000)
    parts = torch.utils.data.random_split(
        range(num_images), [num_images - num_val, num_val], torch.Generator().manual_seed(0)
    )
    found = [rows.tolist() for rows in splits.train_and_val_rows(num_images)]
    assert found == [list(part.indices) for part in parts]
