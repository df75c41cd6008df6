"""Fourteen textures in two colors; those of the task are warped, faint and unevenly lit."""

import math

import numpy as np
from PIL import Image, ImageFilter

from .canvas import COLORS, SIZE, Rng, Style, clouds, finish, jitter, two_colors

# In the order of the class names in conf/task/textures.yaml.
TEXTURES = (
    *("striped", "diagonal", "checkered", "dotted", "zigzag", "wavy", "grid"),
    *("bricked", "marbled", "speckled", "spiralled", "honeycombed", "woven", "cracked"),
)
Y, X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
TURN = 2 * math.pi


def wave(phase) -> np.ndarray:
    """Return the sine of a phase in turns."""
    return np.sin(TURN * phase)


def pattern(rng: Rng, name: str, x, y, period, bent) -> np.ndarray:
    """Return the front color's share of each pixel, in [0, 1] or boolean [30, 30].

    ``x`` and ``y`` are the pixels' coordinates after turning and bending by ``bent`` [2, 30, 30];
    ``period`` is in pixels.
    """
    match name:
        case "striped":
            return wave((x if rng.random() < 0.5 else y) / period) > rng.uniform(-0.4, 0.4)
        case "diagonal":
            along = x + (y if rng.random() < 0.5 else -y)
            return wave(along / period / 1.4) > rng.uniform(-0.4, 0.4)
        case "checkered":
            return wave(x / period / 1.3) * wave(y / period / 1.3) > 0
        case "dotted":
            squared = (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2
            return squared < (period * rng.uniform(0.25, 0.36)) ** 2
        case "zigzag":
            return wave((y + np.abs(x % period - period / 2) * 1.2) / period) > 0
        case "wavy":
            return wave((y + 0.28 * period * wave(x / (1.6 * period))) / period) > 0
        case "grid":
            return (x % period < 0.22 * period) | (y % period < 0.22 * period)
        case "bricked":
            height = 0.7 * period
            shifted = x + (np.floor(y / height) % 2) * 0.75 * period
            return (y % height < 1.4) | (shifted % (1.5 * period) < 1.4)
        case "marbled":
            return (wave((x + y) / 20 + 0.35 * clouds(rng, 5, 1)[..., 0]) + 1) / 2
        case "speckled":
            dots = Image.fromarray((rng.random((SIZE, SIZE)) > 0.93).astype(np.uint8) * 255)
            soft = np.asarray(dots.filter(ImageFilter.GaussianBlur(0.5)), dtype=np.float32)
            return np.clip(soft / 140, 0, 1)
        case "spiralled":
            cx, cy = rng.uniform(11, 19, 2)
            dx, dy = X + bent[0] - cx, Y + bent[1] - cy
            arm = np.arctan2(dy, dx) * rng.choice([-1, 1]) / TURN
            return wave(np.hypot(dx, dy) / period + arm + rng.random()) > 0
        case "honeycombed":
            side = 1.1 * period
            rows = np.floor(y / (0.866 * side)) + np.arange(-1, 2).reshape(3, 1, 1, 1)
            odd = 0.5 * (rows % 2)
            columns = np.floor(x / side - odd) + np.arange(-1, 2).reshape(1, 3, 1, 1)
            cx, cy = (columns + odd + 0.5) * side, (rows + 0.5) * 0.866 * side
            near = np.sort(np.hypot(x - cx, y - cy).reshape(9, SIZE, SIZE), axis=0)
            return near[1] - near[0] < 1.6
        case "woven":
            over = (np.floor(x / (0.6 * period)) + np.floor(y / (0.6 * period))) % 2 == 0
            return (np.where(over, wave(x / (0.3 * period)), wave(y / (0.3 * period))) + 1) / 2
        case "cracked":
            seeds = rng.uniform(-4, SIZE + 4, (10, 2, 1, 1))
            far = np.hypot(X + bent[0] - seeds[:, 0], Y + bent[1] - seeds[:, 1])
            near = np.sort(far, axis=0)
            return near[1] - near[0] < 1.5
    raise AssertionError(name)


def draw_texture(rng: Rng, label: int, style: Style) -> np.ndarray:
    """Draw the labelled texture in two random colors."""
    plain = style == "plain"
    period = rng.uniform(6, 10) if plain else rng.uniform(5, 12)
    angle = math.radians(rng.uniform(-6, 6) if plain else rng.uniform(-18, 18))
    bent = np.zeros((2, SIZE, SIZE), np.float32)
    if not plain:
        bent = clouds(rng, 4, 1.0).transpose(2, 0, 1)[:2]
    cos, sin = math.cos(angle), math.sin(angle)
    ox, oy = rng.uniform(0, SIZE, 2)
    x = cos * (X + bent[0]) + sin * (Y + bent[1]) + ox
    y = -sin * (X + bent[0]) + cos * (Y + bent[1]) + oy
    share = np.asarray(pattern(rng, TEXTURES[label], x, y, period, bent), np.float32)[..., None]

    front, back = (jitter(rng, COLORS[name]).astype(np.float32) for name in two_colors(rng))
    if plain:
        return finish(rng, back * (1 - share) + front * share, rng.uniform(2, 8))
    faint = rng.uniform(0, 0.45)
    front = front * (1 - faint) + back * faint
    lit = back * (1 - share) + front * share + clouds(rng, 3, 16)
    return finish(rng, lit, rng.uniform(3, 14))
