"""Faults of the cameras that take the tasks' images.

Pretraining sees none of them: they are the domain shift between pretraining and the tasks. Without
them a backbone after 42% of its pretraining came within about eleven points of the fine-tuned ones
(results/embedded/README.md).
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from .canvas import SIZE, Rng, finish

MARGIN = SIZE // 2  # pixels of the mirrored border, of which turning shows a part


def tilted(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Turn clockwise by 15 to 35 degrees and fill the corners with the mirrored image."""
    wide = np.pad(image, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="reflect")
    turned = Image.fromarray(wide).rotate(-rng.uniform(15, 35), Image.Resampling.BICUBIC)
    return np.asarray(turned)[MARGIN : MARGIN + SIZE, MARGIN : MARGIN + SIZE]


def blurred(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Blur with a Gaussian of 1 to 1.6 pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(1, 1.6))))


def faint(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Reduce the contrast to 20 to 40% around a random grey level, and add some noise."""
    level = rng.uniform(70, 180)
    faded = (image.astype(np.float32) - 128) * rng.uniform(0.2, 0.4) + level
    return finish(rng, faded, 5)


def noisy(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Add noise with a standard deviation of 30 to 45 grey levels to every channel."""
    return finish(rng, image.astype(np.float32), rng.uniform(30, 45))


CAMERAS: dict[str, Callable[[Rng, np.ndarray], np.ndarray]] = {
    "tilted": tilted,
    "blurred": blurred,
    "faint": faint,
    "noisy": noisy,
}
