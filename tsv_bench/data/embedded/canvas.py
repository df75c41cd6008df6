"""The tools of all generators of the embedded suite: colors, backgrounds, fonts, warps.

A figure is drawn on a canvas of 64 x 64 pixels and ends as uint8 [30, 30, 3]. An image has a
``Style``: the backbone is pretrained mostly on "plain" and "mixed" ones, tasks are made of "task".
"""

import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Style = Literal["plain", "mixed", "task"]
Rng = np.random.Generator

SIZE = 30  # pixels of a finished image
CANVAS = 64  # pixels of the canvas a figure is drawn on

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 215, 50),
    "orange": (240, 140, 30),
    "purple": (140, 60, 180),
    "pink": (245, 150, 190),
    "brown": (130, 80, 40),
    "black": (20, 20, 20),
    "white": (240, 240, 240),
    "gray": (128, 128, 128),
    "cyan": (60, 200, 210),
}

MIN_CONTRAST = 130  # between the sums of two colors over their channels

# Photographs for backgrounds: scikit-learn's samples (CC BY 2.0) and matplotlib's portrait.
# Not imported, only located: importing scikit-learn takes a second, and only `digits` needs it.
_SKLEARN = Path(find_spec("sklearn").origin).parent / "datasets" / "images"
_MATPLOTLIB = Path(matplotlib.get_data_path())
PHOTOS = (
    _SKLEARN / "china.jpg",
    _SKLEARN / "flower.jpg",
    _MATPLOTLIB / "sample_data" / "grace_hopper.jpg",
)


def jitter(rng: Rng, color, amount: float = 18) -> np.ndarray:
    """Return the color with normal noise of ``amount`` on each channel, in [0, 255]."""
    return np.clip(np.asarray(color) + rng.normal(0, amount, 3), 0, 255)


def fill(rng: Rng, color, amount: float = 18) -> tuple[int, ...]:
    """Return a jittered color as PIL takes it."""
    return tuple(int(v) for v in jitter(rng, color, amount))


def two_colors(rng: Rng) -> tuple[str, str]:
    """Return the names of a foreground and a background that differ clearly in brightness."""
    names = list(COLORS)
    while True:
        a, b = (names[i] for i in rng.choice(len(names), 2, replace=False))
        if abs(sum(COLORS[a]) - sum(COLORS[b])) > MIN_CONTRAST:
            return a, b


def clouds(rng: Rng, cells: int, amount: float) -> np.ndarray:
    """Return smooth noise, float32 [30, 30, 3]: enlarged grids of ``cells`` x ``cells`` normals."""
    grid = rng.normal(0, amount, (3, cells, cells)).astype(np.float32)
    return np.stack([np.asarray(enlarged(channel)) for channel in grid], axis=-1)


def enlarged(grid: np.ndarray) -> Image.Image:
    """Return a grid [rows, columns] enlarged to the size of a finished image."""
    return Image.fromarray(grid).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def background(rng: Rng, color: str, style: Style, photos: bool = True) -> np.ndarray:
    """Return a background, float32 [30, 30, 3]: flat, cloudy or partly a photograph.

    Photographs are not in "plain" images, nor anywhere without ``photos``.
    """
    flat = np.broadcast_to(jitter(rng, COLORS[color]).astype(np.float32), (SIZE, SIZE, 3))
    if style == "plain":
        return flat + clouds(rng, 3, 12) if rng.random() < 0.4 else flat
    kind = rng.random()
    if kind < 0.3:
        return 0.7 * flat + 0.3 * photo_crop(rng) if photos else flat + clouds(rng, 3, 12)
    return flat + clouds(rng, 4, 18) if kind < 0.8 else flat


@cache
def photo(path: Path) -> Image.Image:
    return Image.open(path, formats=["JPEG"]).convert("RGB")


def photo_crop(rng: Rng) -> np.ndarray:
    """Return a random square of a photograph, float32 [30, 30, 3]."""
    image = photo(PHOTOS[rng.integers(len(PHOTOS))])
    side = int(rng.integers(48, 160))
    x, y = (int(rng.integers(0, extent - side)) for extent in image.size)
    crop = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
    return np.asarray(crop, dtype=np.float32)


def warp(rng: Rng, image: Image.Image, rotate, shear, scale, shift) -> Image.Image:
    """Apply a random affine map to a canvas and reduce it to 30 x 30 pixels.

    The angle is drawn from -``rotate`` to ``rotate`` degrees, shear and shift likewise, the shift
    as a share of the canvas. ``scale`` is the range of the scale.
    """
    angle = math.radians(rng.uniform(-rotate, rotate))
    sheared, scaled = rng.uniform(-shear, shear), rng.uniform(*scale)
    cos, sin = math.cos(angle) / scaled, math.sin(angle) / scaled
    matrix = np.array([[cos, sin], [-sin, cos]]) @ np.array([[1, sheared], [0, 1]])
    center = np.full(2, CANVAS / 2)
    offset = center - matrix @ (center + rng.uniform(-shift, shift, 2) * CANVAS)
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    size = (CANVAS, CANVAS)
    warped = image.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return reduced(warped)


def reduced(image: Image.Image) -> Image.Image:
    """Return a canvas reduced to the size of a finished image."""
    return image.resize((SIZE, SIZE), Image.Resampling.BOX)


def composite(rng: Rng, mask: Image.Image, color, back: np.ndarray, noise, blur=0.0) -> np.ndarray:
    """Paint a color through a mask on a background and add noise; return uint8 [30, 30, 3]."""
    if blur > 0:
        mask = mask.filter(ImageFilter.GaussianBlur(float(blur)))
    share = np.asarray(mask, dtype=np.float32)[..., None] / 255
    return finish(rng, back * (1 - share) + np.asarray(color, np.float32) * share, noise)


def finish(rng: Rng, image: np.ndarray, noise: float) -> np.ndarray:
    """Add pixel noise of standard deviation ``noise`` and clip to uint8."""
    noisy = image + rng.standard_normal(image.shape, dtype=np.float32) * noise
    return np.clip(noisy, 0, 255).astype(np.uint8)


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Return one of the fonts that matplotlib ships (DejaVu, STIX, Computer Modern)."""
    return ImageFont.truetype(str(_MATPLOTLIB / "fonts" / "ttf" / name), size)


def blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty mask and the pencil to draw on it."""
    image = Image.new("L", (CANVAS, CANVAS), 0)
    return image, ImageDraw.Draw(image)
