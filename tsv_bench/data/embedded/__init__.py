"""The embedded suite: scanned and drawn images that need no download and follow from a seed."""

import zlib
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from .cameras import CAMERAS
from .canvas import Rng, Style
from .figures import draw_colored, draw_counted, draw_shape, draw_sign
from .glyphs import LETTERS, draw_house_number, draw_written_digit
from .land import draw_land
from .textures import draw_texture

Draw = Callable[[Rng, int, Style], np.ndarray]

# The images of the task ``digits`` are scanned; pretraining draws others in their place.
GENERATORS: dict[str, Draw] = {
    "digits": draw_written_digit,
    "street": draw_house_number,
    "signs": draw_sign,
    "textures": draw_texture,
    "land": draw_land,
    "shapes": draw_shape,
    "counting": draw_counted,
    "colors": draw_colored,
    **LETTERS,
}


def image_rng(*key: int | str) -> Rng:
    """Return a generator for one image, so that images do not depend on how many are drawn."""
    return np.random.default_rng(
        [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    )


def drawn(
    task: str, split: str, num_images: int, num_classes: int, camera: str, seed: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the images, uint8 [30, 30, 3], and labels of a drawn split: balanced and shuffled."""
    draw, take = GENERATORS[task], CAMERAS[camera]
    labels = np.arange(num_images) % num_classes
    labels = image_rng("order", task, split, seed).permutation(labels)
    for index, label in enumerate(labels):
        rng = image_rng(task, split, seed, index)
        yield take(rng, draw(rng, int(label), "task")), int(label)


@cache
def scanned_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's handwritten digits in a fixed random order, and their labels.

    They are uint8 [1797, 8, 8]: UCI's test set of optical digits, 17 grey levels.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(7).permutation(len(bunch.target))
    images = (bunch.images * (255 / 16)).clip(0, 255).astype(np.uint8)
    return images[order], bunch.target[order]


# Split by image, since the writers are not known.
DIGIT_ROWS = {"train": (0, 1200), "val": (1200, 1300), "test": (1300, 1797)}


def scanned(split: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the images, uint8 [30, 30, 3], and labels of the digits task, on black as in MNIST."""
    from PIL import Image

    images, labels = scanned_digits()
    for row in range(*DIGIT_ROWS[split]):
        small = Image.fromarray(images[row]).resize((28, 28), Image.Resampling.BICUBIC)
        padded = np.pad(np.asarray(small), 1)
        yield np.repeat(padded[..., None], 3, axis=-1), int(labels[row])
