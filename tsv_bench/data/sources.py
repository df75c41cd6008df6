"""Sources of images that need no download. Called with a split, they yield images and labels.

Their full names are part of a task's fingerprint (see `task.describe`).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tsv_bench.data.task import SPLITS

if TYPE_CHECKING:
    import numpy as np

# Raised whenever a generator draws something else for the same seed: caches are then rebuilt.
VERSION = 2


def drawn(
    split: str,
    *,
    task: str,
    num_classes: int,
    num_images: Mapping[str, int],
    camera: str,
    seed: int,
) -> "Iterator[tuple[np.ndarray, int]]":
    """Draw ``num_images[split]`` images of a task of the embedded suite, its classes balanced.

    ``camera`` names the fault of the camera that takes them (embedded/cameras.py). Raises
    ValueError if no generator or camera has that name.
    """
    from tsv_bench.data import embedded  # here: a task is described without what draws it

    if task not in embedded.GENERATORS:
        raise ValueError(
            f"no generator draws {task!r}; there are {', '.join(sorted(embedded.GENERATORS))}."
        )
    if camera not in embedded.CAMERAS:
        raise ValueError(f"no camera is {camera!r}; there are {', '.join(embedded.CAMERAS)}.")
    if odd := set(num_images) ^ set(SPLITS):
        raise ValueError(f"num_images of {task} must name {SPLITS}; {min(odd)!r} is odd.")
    yield from embedded.drawn(task, split, num_images[split], num_classes, camera, seed)


def scanned_digits(split: str) -> "Iterator[tuple[np.ndarray, int]]":
    """Yield the scanned digits that scikit-learn ships: 1,200 train, 100 val, 497 test."""
    from tsv_bench.data import embedded

    yield from embedded.scanned(split)


# Part of a task's fingerprint: images that an older version drew are drawn again.
drawn.version = scanned_digits.version = VERSION
