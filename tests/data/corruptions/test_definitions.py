"""Each corruption beside its definition, written down plainly as the authors' code has it."""

import colorsys
import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tsv_bench.data.corruptions.definitions import (
    CORRUPTIONS,
    LARGEST_SMALL,
    SEVERITIES,
    disk,
    plasma,
    zoomed,
)

SIZE = 12


def photographs(count=2, size=SIZE):
    """Smooth images of all brightnesses with a black corner, bytes / 255."""
    rng = np.random.default_rng(3)
    images = ndimage.gaussian_filter(rng.random((count, size, size, 3)), (0, 1, 1, 0))
    images = (images - images.min()) / np.ptp(images)
    images[:, :2, :2] = 0
    return np.rint(images * 255) / 255


def changed(name, severity, x, seed=5):
    """The corruption, and generators that will draw what it has drawn."""
    corruption = CORRUPTIONS[name]
    numbers = corruption.numbers(x.shape[1], severity)
    rngs, again = ([np.random.default_rng([seed, i]) for i in range(len(x))] for _ in range(2))
    return corruption.function(x, numbers, rngs), numbers, again


def close(found, expected):
    # Both are sums of fewer than a thousand products of numbers in [0, 1], in float64.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("size", [SIZE, 70])
def test_noise(size, severity):
    x = photographs(size=size)
    found, scale, rngs = changed("gaussian_noise", severity, x)
    pairs = list(zip(x, rngs, strict=True))
    close(found, [image + rng.normal(scale=scale, size=image.shape) for image, rng in pairs])
    found, photons, rngs = changed("shot_noise", severity, x)
    pairs = list(zip(x, rngs, strict=True))
    close(found, [rng.poisson(image * photons) / photons for image, rng in pairs])
    found, share, _ = changed("impulse_noise", severity, x)
    hit = found != x
    assert set(found[hit]) <= {0, 1}
    # Of so many values the share is met within four standard deviations; black ones do not show.
    bright = (x > 0) & (x < 1)
    assert abs(hit[bright].mean() - share) < 4 * math.sqrt(share / bright.sum())
    assert abs(found[hit & bright].mean() - 0.5) < 2 / math.sqrt((hit & bright).sum())


def gaussian_edge(sharp, sigma, half):
    """A Gaussian blur of (2 half + 1) squared taps; the image is mirrored at its last pixels."""
    taps = np.array([math.exp(-(i**2) / (2 * sigma**2)) for i in range(-half, half + 1)])
    window = np.outer(taps, taps) / taps.sum() ** 2
    padded, size = np.pad(sharp, half, mode="reflect"), len(sharp)
    return np.array(
        [
            [(padded[i : i + len(taps), j : j + len(taps)] * window).sum() for j in range(size)]
            for i in range(size)
        ]
    )


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_blur(severity):
    x = photographs(1)
    found, (radius, sigma), _ = changed("defocus_blur", severity, x)
    places = range(-8, 9)
    sharp = np.array([[float(i**2 + j**2 <= radius**2) for i in places] for j in places])
    kernel = gaussian_edge(sharp / sharp.sum(), sigma, 1)
    padded, expected = np.pad(x[0], ((3, 3), (3, 3), (0, 0)), mode="reflect"), np.zeros_like(x[0])
    for i in range(-3, 4):
        for j in range(-3, 4):
            moved = padded[3 + i : 3 + i + SIZE, 3 + j : 3 + j + SIZE]
            expected += kernel[8 + i, 8 + j] * moved
    assert kernel[5:12, 5:12].sum() == pytest.approx(1)
    close(found[0], expected)


def test_the_edge_of_a_large_lens_is_smoothed_further():
    places = range(-10, 11)
    sharp = np.array([[float(i**2 + j**2 <= 100) for i in places] for j in places])
    close(disk(10, 0.5), gaussian_edge(sharp / sharp.sum(), 0.5, 2))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_blur(severity):
    """MotionBlurImage of ImageMagick."""
    x = photographs(1)
    found, (radius, sigma), [rng] = changed("motion_blur", severity, x)
    angle = math.radians(rng.uniform(-45, 45))
    width = 2 * math.ceil(radius) + 1
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(width)]
    expected = np.zeros_like(x[0])
    for row in range(SIZE):
        for column in range(SIZE):
            for i, weight in enumerate(weights):
                right = math.ceil(i * math.cos(angle) - 0.5)
                down = math.ceil(i * math.sin(angle) - 0.5)
                there = min(max(row + down, 0), SIZE - 1), min(max(column + right, 0), SIZE - 1)
                expected[row, column] += weight / sum(weights) * x[0][there]
    # It gives bytes.
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=0.5001 / 255)
    close(found * 255, np.rint(found * 255))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur(severity):
    x = photographs(1, 30)
    found, (stop, step), _ = changed("zoom_blur", severity, x)
    total = x[0].copy()
    for factor in np.arange(1, stop, step):
        kept = math.ceil(30 / factor)
        top = (30 - kept) // 2
        middle = x[0][top : top + kept, top : top + kept]
        large = ndimage.zoom(middle, (factor, factor, 1), order=1)
        trim = (len(large) - 30) // 2
        total += large[trim : trim + 30, trim : trim + 30]
    close(found[0], total / (len(np.arange(1, stop, step)) + 1))
    close(zoomed(x, 1.0), x)


def diamonds_and_squares(size, decay, rng):
    """The heights, point by point; the grid wraps around."""
    heights, step, wibble = np.zeros((size, size)), size, 100
    while step >= 2:
        half = step // 2
        for rows, columns, near in (
            (half, half, [(-half, -half), (-half, half), (half, -half), (half, half)]),
            (0, half, [(-half, 0), (half, 0), (0, -half), (0, half)]),
            (half, 0, [(-half, 0), (half, 0), (0, -half), (0, half)]),
        ):
            jitter = rng.uniform(-wibble, wibble, (size // step, size // step))
            for i, row in enumerate(range(rows, size, step)):
                for j, column in enumerate(range(columns, size, step)):
                    around = [heights[(row + a) % size, (column + b) % size] for a, b in near]
                    heights[row, column] = sum(around) / 4 + wibble * jitter[i, j]
        step, wibble = half, wibble / decay
    return (heights - heights.min()) / (heights.max() - heights.min())


def test_fog():
    x = photographs(1)
    found, (amount, decay), [rng] = changed("fog", 3, x)
    clouds = diamonds_and_squares(16, decay, rng)[:SIZE, :SIZE, None]
    close(found[0], (x[0] + amount * clouds) * x.max() / (x.max() + amount))
    assert plasma(33, 2, np.random.default_rng(0)).shape == (64, 64)


@pytest.mark.parametrize("severity", [1, 5])
def test_brightness_and_contrast(severity):
    x = photographs(1)
    found, more, _ = changed("brightness", severity, x)
    for pixel, of in zip(found.reshape(-1, 3), x.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*of)
        close(pixel, colorsys.hsv_to_rgb(hue, saturation, min(1, value + more)))
    found, share, _ = changed("contrast", severity, x)
    for channel in range(3):
        mean = x[0, ..., channel].mean()
        close(found[0, ..., channel], (x[0, ..., channel] - mean) * share + mean)


@pytest.mark.parametrize("size", [SIZE, 70])
def test_pixelate_and_jpeg(size):
    x = photographs(1, size)
    image = Image.fromarray(np.uint8(np.rint(x[0] * 255)))
    found, scale, _ = changed("pixelate", 4, x)
    side, box = int(size * scale), Image.Resampling.BOX
    close(found[0], np.asarray(image.resize((side, side), box).resize((size, size), box)) / 255)
    found, quality, _ = changed("jpeg_compression", 4, x)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    close(found[0], np.asarray(Image.open(file)) / 255)


def test_severities_go_by_the_size_of_images():
    """All numbers of make_cifar_c.py and of make_imagenet_c.py."""
    expected = {
        "gaussian_noise": ([0.04, 0.06, 0.08, 0.09, 0.1], [0.08, 0.12, 0.18, 0.26, 0.38]),
        "shot_noise": ([500, 250, 100, 75, 50], [60, 25, 12, 5, 3]),
        "impulse_noise": ([0.01, 0.02, 0.03, 0.05, 0.07], [0.03, 0.06, 0.09, 0.17, 0.27]),
        "defocus_blur": (
            [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
            [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
        ),
        "motion_blur": (
            [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
            [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
        ),
        "zoom_blur": (
            [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
            [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
        ),
        "fog": (
            [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
            [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
        ),
        "brightness": ([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5]),
        "contrast": ([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]),
        "pixelate": ([0.95, 0.9, 0.85, 0.75, 0.65], [0.6, 0.5, 0.4, 0.3, 0.25]),
        "jpeg_compression": ([80, 65, 58, 50, 40], [25, 18, 15, 10, 7]),
    }
    sizes = (LARGEST_SMALL, LARGEST_SMALL + 1)
    found = {
        name: tuple([of.numbers(size, severity) for severity in SEVERITIES] for size in sizes)
        for name, of in CORRUPTIONS.items()
    }
    assert found == expected
