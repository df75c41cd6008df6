"""Eleven corruptions of ImageNet-C and CIFAR-10-C: Hendrycks and Dietterich, ICLR 2019.

https://arxiv.org/abs/1903.12261; the severities are those of the authors' make_imagenet_c.py and
make_cifar_c.py. Each function takes images as float64 [images, size, size, 3] in [0, 1], the
numbers of a severity and a random generator for each image. What it returns may leave [0, 1].

Left out are frost, which takes the authors' photographs, spatter, which is defined by functions of
OpenCV, and glass, snow and elastic transform.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

VERSION = 1  # raised whenever a corruption gives other pixels than before
LARGEST_SMALL = 64  # pixels a side; up to here the severities are those of CIFAR-10-C

Rngs = Sequence[np.random.Generator]


def gaussian_noise(x: np.ndarray, scale: float, rngs: Rngs) -> np.ndarray:
    """Add noise of a normal distribution."""
    return x + scale * np.stack([rng.standard_normal(x.shape[1:]) for rng in rngs])


def shot_noise(x: np.ndarray, photons: float, rngs: Rngs) -> np.ndarray:
    """Count photons, of which a white pixel sends so many on average."""
    counts = [rng.poisson(image * photons) for image, rng in zip(x, rngs, strict=True)]
    return np.stack(counts) / photons


def impulse_noise(x: np.ndarray, share: float, rngs: Rngs) -> np.ndarray:
    """Set a share of all values to 0 or 1, each as likely."""
    # Drawn in one order for all severities: what is hit at one is hit at those above it.
    hit, salt = np.moveaxis([[rng.random(x.shape[1:]) for _ in range(2)] for rng in rngs], 1, 0)
    return np.where(hit < share, (salt < 0.5).astype(float), x)


def defocus_blur(x: np.ndarray, lens: tuple[float, float], rngs: Rngs) -> np.ndarray:
    """Spread each pixel over a disk; ``lens`` is its radius and the sigma that smooths its edge."""
    from scipy.ndimage import correlate

    return correlate(x, disk(*lens)[None, :, :, None], mode="mirror")


def disk(radius: float, sigma: float) -> np.ndarray:
    """Return a disk with a smooth edge, its sum 1, cut to what is not 0."""
    from scipy.ndimage import correlate1d

    reach, half = (8, 1) if radius <= 8 else (int(radius), 2)
    places = np.arange(-reach, reach + 1)
    sharp = (places[:, None] ** 2 + places**2 <= radius**2).astype(float)
    edge = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    smooth = sharp / sharp.sum()
    for axis in (0, 1):
        smooth = correlate1d(smooth, edge / edge.sum(), axis, mode="mirror")
    margin = np.flatnonzero(smooth.any(axis=0))[0]
    return smooth[margin : len(smooth) - margin, margin : len(smooth) - margin]


def motion_blur(x: np.ndarray, motion: tuple[float, float], rngs: Rngs) -> np.ndarray:
    """Trail each pixel along a line, as ImageMagick does; ``motion`` is radius and sigma.

    The angle lies between -45 and 45 degrees. Beyond the edge its pixels are repeated.
    """
    radius, sigma = motion
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    size, blurred = x.shape[1], np.zeros_like(x)
    for image, sharp, rng in zip(blurred, x, rngs, strict=True):
        angle = np.deg2rad(rng.uniform(-45, 45))
        columns, rows = (np.ceil(steps * f(angle) - 0.5).astype(int) for f in (np.cos, np.sin))
        for weight, row, column in zip(weights, rows, columns, strict=True):
            moved = [np.clip(np.arange(size) + shift, 0, size - 1) for shift in (row, column)]
            image += weight * sharp[np.ix_(*moved)]
    return np.rint(blurred * 255) / 255  # as ImageMagick, before what follows cuts off


def zoom_blur(x: np.ndarray, zooms: tuple[float, float], rngs: Rngs) -> np.ndarray:
    """Average images and their middle at growing sizes; ``zooms``: up to where, in which steps."""
    total, factors = x.copy(), np.arange(1, *zooms)
    for factor in factors:
        total += zoomed(x, factor)
    return total / (len(factors) + 1)


def zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """Return the middle of images, enlarged by a factor to the size that they have.

    Between pixels values are linear, rows apart from columns.
    """
    size = x.shape[1]
    kept = int(np.ceil(size / factor))
    large = round(kept * factor)
    shown = (large - size) // 2 + np.arange(size)
    places = shown * (kept - 1) / max(large - 1, 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(kept)))
    start = (size - kept) // 2
    middle = x[:, start : start + kept, start : start + kept]
    return np.einsum("ri,nijc,sj->nrsc", weights, middle, weights, optimize=True)


def fog(x: np.ndarray, density: tuple[float, float], rngs: Rngs) -> np.ndarray:
    """Add clouds, then make the image as dark as it was; ``density``: how much, how smooth."""
    amount, decay = density
    size = x.shape[1]
    clouds = np.stack([plasma(size, decay, rng)[:size, :size, None] for rng in rngs])
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return (x + amount * clouds) * brightest / (brightest + amount)


def plasma(size: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random height map in [0, 1] by diamonds and squares, its side a power of two.

    Its edges wrap around. Each halving of the grid divides the randomness by ``decay``.
    """
    step = 1 << (size - 1).bit_length()
    heights, wibble = np.zeros((step, step)), 100.0

    def jittered(total: np.ndarray) -> np.ndarray:
        # The factor is squared, as the authors have it.
        return total / 4 + wibble * rng.uniform(-wibble, wibble, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        beside = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = jittered(beside + np.roll(beside, -1, axis=1))
        middles = heights[half::step, half::step]
        across = middles + np.roll(middles, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        heights[::step, half::step] = jittered(across)
        along = middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        heights[half::step, ::step] = jittered(along)
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return heights / heights.max()


def brightness(x: np.ndarray, more: float, rngs: Rngs) -> np.ndarray:
    """Add to the value of each pixel in hue, saturation and value."""
    value = x.max(axis=-1, keepdims=True)
    brighter = np.clip(value + more, 0, 1)
    # With hue and saturation kept, channels scale as the value; black has neither, and turns gray.
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


def contrast(x: np.ndarray, share: float, rngs: Rngs) -> np.ndarray:
    """Keep a share of what each pixel differs from its channel's mean."""
    means = x.mean(axis=(1, 2), keepdims=True)
    return (x - means) * share + means


def pixelate(x: np.ndarray, scale: float, rngs: Rngs) -> np.ndarray:
    """Shrink images to a share of their size and enlarge them again, both by boxes."""

    from PIL.Image import Resampling

    def shrunk(image: "Image.Image") -> "Image.Image":
        side = int(image.width * scale)
        return image.resize((side, side), Resampling.BOX).resize(image.size, Resampling.BOX)

    return _by_pillow(x, shrunk)


def jpeg_compression(x: np.ndarray, quality: int, rngs: Rngs) -> np.ndarray:
    """Write images as JPEG and read them."""

    from PIL import Image

    def compressed(image: "Image.Image") -> "Image.Image":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _by_pillow(x, compressed)


def _by_pillow(x: np.ndarray, change: Callable[["Image.Image"], "Image.Image"]) -> np.ndarray:
    from PIL import Image

    images = [Image.fromarray(image) for image in np.rint(x * 255).astype(np.uint8)]
    return np.stack([np.asarray(change(image)) for image in images]) / 255


@dataclass(frozen=True)
class Corruption:
    """A function and its numbers at severities 1 to 5: of small images, and of large ones."""

    function: Callable[[np.ndarray, Any, Rngs], np.ndarray]
    small: tuple  # CIFAR-10-C, 32 pixels a side
    large: tuple  # ImageNet-C, 224 pixels a side

    def numbers(self, size: int, severity: int) -> Any:
        """Return the numbers for images with sides of so many pixels."""
        return (self.small if size <= LARGEST_SMALL else self.large)[severity - 1]


CORRUPTIONS = {
    of.function.__name__: of
    for of in (
        Corruption(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38)),
        Corruption(shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
        Corruption(impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
        Corruption(
            defocus_blur,
            ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
            ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ),
        Corruption(
            motion_blur,
            ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
            ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        ),
        Corruption(
            zoom_blur,
            ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
            ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        ),
        Corruption(
            fog,
            ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
            ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        ),
        Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
        Corruption(contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
        Corruption(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
        Corruption(jpeg_compression, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    )
}
SEVERITIES = range(1, 6)
