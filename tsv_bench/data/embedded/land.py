"""Twelve kinds of land seen from above."""

import math

import numpy as np
from PIL import Image, ImageDraw

from .canvas import CANVAS, SIZE, Rng, Style, clouds, fill, finish, reduced
from .textures import X, Y

# In the order of the class names in conf/task/land.yaml.
LAND = (
    *("forest", "river", "highway", "residential", "industrial", "field"),
    *("orchard", "desert", "sea", "airport", "stadium", "harbor"),
)
WHITE = (250, 250, 250)


def ground(rng: Rng, color, amount=14.0, cells=6) -> Image.Image:
    """Return unevenly colored ground of the canvas' size."""
    pixels = np.clip(np.asarray(color, np.float32) + clouds(rng, cells, amount), 0, 255)
    image = Image.fromarray(pixels.astype(np.uint8))
    return image.resize((CANVAS, CANVAS), Image.Resampling.BILINEAR)


def scene(rng: Rng, name: str) -> Image.Image:
    """Return one of LAND on the canvas, RGB."""

    def between(low, high):
        return float(rng.uniform(low, high))

    meadow = (70 + between(-15, 15), 120 + between(-20, 20), 60)
    image = ground(rng, meadow if rng.random() < 0.7 else (150, 135, 95))
    if name == "forest":
        image = ground(rng, (35, 80, 40))
    elif name == "industrial":
        image = ground(rng, (135, 132, 128))
    elif name == "desert":
        waves = np.sin(X * between(0.2, 0.5) + Y * between(0.4, 0.9) + clouds(rng, 4, 0.9)[..., 0])
        image = ground(rng, np.array((215, 180, 120)) + 14 * waves[..., None], 0.0)
    elif name == "sea":
        waves = rng.normal(0, 7, (SIZE, SIZE, 1))
        image = ground(rng, np.array((30, 80, 135)) + waves, 8, cells=4)
    pencil = ImageDraw.Draw(image)

    match name:
        case "forest":
            for x, y in rng.uniform(0, CANVAS, (60, 2)):
                r = between(2, 5)
                pencil.ellipse((x - r, y - r, x + r, y + r), fill=fill(rng, (30, 85, 38), 16))
        case "river":
            swing, at, bend = between(4, 10), between(10, 50), between(9, 10)
            bank = [(x, at + swing * math.sin(x / bend + 1)) for x in range(-4, 70, 4)]
            pencil.line(bank, fill=fill(rng, (45, 85, 130)), width=int(between(8, 14)))
        case "highway":
            at, slope = between(10, 54), between(-0.7, 0.7)
            road = [(-5, at - 5 * slope), (70, at + 38 * slope)]
            pencil.line(road, fill=fill(rng, (110, 110, 112)), width=int(between(8, 12)))
            pencil.line(road, fill=(235, 235, 225), width=1)
        case "residential":
            for corner in np.ndindex(5, 5):
                x, y = np.array(corner) * 13 + rng.uniform(1, 4, 2)
                roof = (170, 80, 60) if rng.random() < 0.7 else (150, 150, 150)
                house = (x, y, x + between(5, 8), y + between(5, 8))
                pencil.rectangle(house, fill=fill(rng, roof))
        case "industrial":
            for x, y in rng.uniform(-5, 45, (4, 2)):
                hall = (x, y, x + between(16, 28), y + between(10, 22))
                pencil.rectangle(hall, fill=fill(rng, (205, 208, 212)), outline=(90, 90, 95))
        case "field":
            strips = int(between(3, 6))
            crops = [(190, 170, 80), (110, 160, 60), (140, 110, 70), (80, 140, 50)]
            for i in range(strips):
                strip = (i * CANVAS / strips, 0, (i + 1) * CANVAS / strips, CANVAS)
                pencil.rectangle(strip, fill=fill(rng, crops[rng.integers(4)]))
        case "orchard":
            gap = between(8, 11)
            for i, j in np.ndindex(9, 9):
                x, y = i * gap, j * gap
                tree = (x - 2.6, y - 2.6, x + 2.6, y + 2.6)
                pencil.ellipse(tree, fill=fill(rng, (25, 75, 30), 10))
        case "airport":
            at, slope = between(16, 48), between(-0.4, 0.4)
            runway = [(-5, at), (70, at + 30 * slope)]
            pencil.line(runway, fill=fill(rng, (85, 85, 90)), width=11)
            pencil.line(runway, fill=(240, 240, 240), width=1)
            x, y = between(10, 40), at + between(9, 14)
            pencil.line([(x, y), (x + 16, y)], fill=WHITE, width=3)
            pencil.line([(x + 8, y - 7), (x + 8, y + 7)], fill=WHITE, width=3)
        case "stadium":
            x, y = between(8, 14), between(12, 18)
            pencil.ellipse((x, y, x + 44, y + 32), fill=fill(rng, (175, 95, 70)))
            pencil.ellipse((x + 7, y + 6, x + 37, y + 26), fill=fill(rng, (70, 150, 60)))
        case "harbor":
            shore = between(20, 40)
            pencil.rectangle((0, shore, CANVAS, CANVAS), fill=fill(rng, (35, 85, 135)))
            for i in range(4):
                x = between(2, 8) + i * 14
                pier = (x, shore, x + 3, shore + between(10, 18))
                pencil.rectangle(pier, fill=(205, 205, 205))
            for _ in range(4):
                x, y = between(2, 60), between(shore + 4, 62)
                pencil.ellipse((x, y, x + 6, y + 3), fill=WHITE)
    return image


def draw_land(rng: Rng, label: int, style: Style) -> np.ndarray:
    """Draw the labelled land; outside of plain style it is turned, unevenly lit and hazy."""
    image = np.asarray(reduced(scene(rng, LAND[label])), dtype=np.float32)
    if style == "plain":
        return finish(rng, image, 5)
    image = np.rot90(image, int(rng.integers(4)))
    image = image * rng.uniform(0.6, 1.2) * (1 + rng.normal(0, 0.12, 3)) + rng.uniform(-15, 25)
    image = image + clouds(rng, 4, 12)
    if rng.random() < 0.3:
        image = 0.65 * image + 0.35 * 235  # haze
    return finish(rng, image, rng.uniform(3, 14))
