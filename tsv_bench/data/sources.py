"""Where a task's images come from. A source is one of these with its settings, given a split."""

from collections.abc import Iterator, Mapping

import numpy as np

from tsv_bench.data import embedded
from tsv_bench.data.task import SPLITS


def drawn(
    split: str,
    *,
    task: str,
    num_classes: int,
    num_images: Mapping[str, int],
    camera: str,
    seed: int,
) -> Iterator[tuple[np.ndarray, int]]:
    """A drawn task of the embedded suite: ``num_images[split]`` images, classes balanced.

    ``camera`` is the fault of the camera they are taken with (embedded/cameras.py).
    """
    if task not in embedded.GENERATORS:
        raise ValueError(
            f"no generator draws {task!r}; there are {', '.join(sorted(embedded.GENERATORS))}."
        )
    if camera not in embedded.CAMERAS:
        raise ValueError(f"no camera is {camera!r}; there are {', '.join(embedded.CAMERAS)}.")
    if odd := set(num_images) ^ set(SPLITS):
        raise ValueError(f"num_images of {task} must name {SPLITS}; {min(odd)!r} is odd.")
    yield from embedded.drawn(task, split, num_images[split], num_classes, camera, seed)


def scanned_digits(split: str) -> Iterator[tuple[np.ndarray, int]]:
    """The real digits that scikit-learn ships: 1,200 train, 100 val, 497 test."""
    yield from embedded.scanned(split)


# Part of a task's fingerprint: images drawn by an older version are drawn again.
drawn.version = scanned_digits.version = embedded.VERSION
