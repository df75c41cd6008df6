"""Faults of the cameras that the tasks' images are taken with; pretraining knows none of them.

They are the domain shift between pretraining and the tasks: without them a backbone that
was 42% pretrained came within eleven points or so of fine-tuned (results/embedded/README.md).
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from .canvas import SIZE, Rng, finish

MARGIN = SIZE // 2  # pixels of the mirrored border that turns into the picture


def tilted(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Turned clockwise by 15 to 35 degrees; what comes into view is mirrored."""
    wide = np.pad(image, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="reflect")
    turned = Image.fromarray(wide).rotate(-rng.uniform(15, 35), Image.Resampling.BICUBIC)
    return np.asarray(turned)[MARGIN : MARGIN + SIZE, MARGIN : MARGIN + SIZE]


def blurred(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Out of focus: a Gaussian of 1 to 1.6 pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(1, 1.6))))


def faint(rng: Rng, image: np.ndarray) -> np.ndarray:
    """A fifth to two fifths of the contrast, around a level of its own, and some noise."""
    level = rng.uniform(70, 180)
    faded = (image.astype(np.float32) - 128) * rng.uniform(0.2, 0.4) + level
    return finish(rng, faded, 5)


def noisy(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Noise of 30 to 45 grey levels on every channel."""
    return finish(rng, image.astype(np.float32), rng.uniform(30, 45))


CAMERAS: dict[str, Callable[[Rng, np.ndarray], np.ndarray]] = {
    "tilted": tilted,
    "blurred": blurred,
    "faint": faint,
    "noisy": noisy,
}
