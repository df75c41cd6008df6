"""Drawn figures: geometric shapes, traffic signs, counted objects, colored objects."""

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .canvas import (
    CANVAS,
    COLORS,
    Rng,
    Style,
    background,
    blank,
    composite,
    finish,
    font,
    jitter,
    reduced,
    two_colors,
    warp,
)

CENTER = CANVAS / 2

# In the order of the class names in conf/task/shapes.yaml and signs.yaml.
SHAPES = (
    *("circle", "square", "triangle", "pentagon", "hexagon", "star"),
    *("cross", "ring", "crescent", "heart", "diamond", "arrow"),
)
SIGNS = (
    *("stop", "yield", "no entry", "30", "50", "80", "priority road", "left", "right", "straight"),
    *("roundabout", "crossing", "danger", "road works", "no parking", "end of limits"),
)

RED, WHITE, BLUE = (200, 30, 35, 255), (245, 245, 245, 255), (30, 70, 190, 255)
YELLOW, BLACK = (245, 200, 30, 255), (15, 15, 15, 255)


def star(points: int, radius: float, start: float = -90, inner: float | None = None):
    """Return the corners of a regular polygon, or of a star if there is an ``inner`` radius.

    Radii are in pixels; ``start`` is the angle of the first corner in degrees.
    """
    radii = [radius] if inner is None else [radius, inner]
    count = points * len(radii)
    angles = (math.radians(start + 360 * i / count) for i in range(count))
    lengths = (radii[i % len(radii)] for i in range(count))
    return [
        (CENTER + r * math.cos(a), CENTER + r * math.sin(a))
        for r, a in zip(lengths, angles, strict=True)
    ]


def disc(pencil: ImageDraw.ImageDraw, radius: float, color=255, dx=0.0, dy=0.0) -> None:
    """Draw a disc around the canvas' center, moved by ``dx`` and ``dy`` pixels."""
    x, y = CENTER + dx, CENTER + dy
    pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


@cache
def shape_mask(name: str) -> Image.Image:
    """Return the mask of one of SHAPES on the canvas."""
    image, pencil = blank()
    c = CENTER
    match name:
        case "circle":
            disc(pencil, 22)
        case "square":
            pencil.rectangle((c - 20, c - 20, c + 20, c + 20), fill=255)
        case "triangle":
            pencil.polygon(star(3, 24), fill=255)
        case "pentagon":
            pencil.polygon(star(5, 24), fill=255)
        case "hexagon":
            pencil.polygon(star(6, 24), fill=255)
        case "star":
            pencil.polygon(star(5, 26, inner=10), fill=255)
        case "cross":
            pencil.rectangle((c - 7, c - 23, c + 7, c + 23), fill=255)
            pencil.rectangle((c - 23, c - 7, c + 23, c + 7), fill=255)
        case "ring":
            disc(pencil, 23)
            disc(pencil, 13, 0)
        case "crescent":
            disc(pencil, 22)
            disc(pencil, 21, 0, dx=11, dy=-3)
        case "heart":
            disc(pencil, 11, dx=-11, dy=-9)
            disc(pencil, 11, dx=11, dy=-9)
            pencil.polygon([(c - 21, c - 5), (c + 21, c - 5), (c, c + 24)], fill=255)
        case "diamond":
            pencil.polygon([(c, c - 26), (c + 17, c), (c, c + 26), (c - 17, c)], fill=255)
        case "arrow":
            tip = [(c + 4, c - 19), (c + 25, c), (c + 4, c + 19)]
            corners = [(c - 24, c - 7), (c + 4, c - 7), *tip, (c + 4, c + 7), (c - 24, c + 7)]
            pencil.polygon(corners, fill=255)
    return image


def draw_shape(rng: Rng, label: int, style: Style) -> np.ndarray:
    """Draw the labelled shape in two random colors."""
    front, back = two_colors(rng)
    mask = shape_mask(SHAPES[label])
    if style == "plain":
        mask, noise = warp(rng, mask, 8, 0.05, (0.6, 1.0), 0.06), rng.uniform(2, 10)
    else:
        mask, noise = warp(rng, mask, 15, 0.15, (0.45, 0.95), 0.12), rng.uniform(4, 18)
    paper = background(rng, back, style)
    return composite(rng, mask, jitter(rng, COLORS[front]), paper, noise)


def draw_colored(rng: Rng, label: int, style: Style) -> np.ndarray:
    """Draw a random shape in the labelled color on another color."""
    names = list(COLORS)
    front = names[label]
    back = names[(label + 1 + int(rng.integers(len(names) - 1))) % len(names)]
    mask = shape_mask(SHAPES[rng.integers(len(SHAPES))])
    plain = style == "plain"
    scale, shift = ((0.5, 1.0), 0.06) if plain else ((0.4, 0.8), 0.15)
    mask = warp(rng, mask, 20, 0.1, scale, shift)
    paper = background(rng, back, style)
    color = jitter(rng, COLORS[front], 14 if plain else 20)
    image = composite(rng, mask, color, paper, 5 if plain else rng.uniform(3, 14))
    if not plain:
        light = rng.uniform(0.7, 1.1) * (1 + rng.normal(0, 0.06, 3))
        image = np.clip(image * light, 0, 255).astype(np.uint8)
    return image


def draw_counted(rng: Rng, label: int, style: Style) -> np.ndarray:
    """Draw ``label`` + 1 separate objects; in plain style all of them are discs."""
    image, pencil = blank()
    plain = style == "plain"
    spread = 7 if plain else 6
    places: list[np.ndarray] = []
    while len(places) < label + 1:
        place = rng.uniform(9, 55, 2)
        if all(np.hypot(*(place - other)) > 2.5 * spread for other in places):
            places.append(place)
        elif rng.random() < 0.02:  # a corner that leaves no room for the rest: start again
            places.clear()
    for x, y in places:
        r = spread if plain else rng.uniform(4.5, 7)
        kind = 0 if plain else rng.random()
        if kind < 0.4:
            pencil.ellipse((x - r, y - r, x + r, y + r), fill=255)
        elif kind < 0.7:
            pencil.rectangle((x - 0.9 * r, y - 0.9 * r, x + 0.9 * r, y + 0.9 * r), fill=255)
        else:
            pencil.polygon([(x, y - 1.1 * r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)], fill=255)
    front, back = two_colors(rng)
    noise = rng.uniform(2, 8) if plain else rng.uniform(3, 14)
    paper = background(rng, back, style, photos=False)
    return composite(rng, reduced(image), jitter(rng, COLORS[front]), paper, noise)


@cache
def sign(name: str) -> Image.Image:
    """Return one of SIGNS, a European traffic sign, as RGBA on a transparent canvas."""
    image = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    pencil = ImageDraw.Draw(image)

    def write(text, points, color, dy=0, typeface="DejaVuSans-Bold.ttf"):
        face = font(typeface, points)
        x0, y0, x1, y1 = pencil.textbbox((0, 0), text, font=face)
        corner = (CENTER - (x1 + x0) / 2, CENTER - (y1 + y0) / 2 + dy)
        pencil.text(corner, text, fill=color, font=face)

    match name:
        case "stop":
            pencil.polygon(star(8, 27, 22.5), fill=RED)
            write("STOP", 17, WHITE)
        case "yield":
            pencil.polygon(star(3, 29, 90), fill=RED)
            pencil.polygon(star(3, 17, 90), fill=WHITE)
        case "no entry":
            disc(pencil, 27, RED)
            pencil.rectangle((13, 26, 51, 38), fill=WHITE)
        case "30" | "50" | "80":
            disc(pencil, 27, RED)
            disc(pencil, 20, WHITE)
            write(name, 25, BLACK)
        case "priority road":
            pencil.polygon(star(4, 29), fill=WHITE)
            pencil.polygon(star(4, 24), fill=YELLOW)
        case "left" | "right" | "straight" | "roundabout":
            disc(pencil, 27, BLUE)
            arrow = {"left": "⬅", "right": "➡", "straight": "⬆", "roundabout": "↺"}[name]
            write(arrow, 36, WHITE, typeface="DejaVuSans.ttf")
        case "crossing":
            pencil.rectangle((6, 6, 58, 58), fill=BLUE)
            pencil.polygon([(32, 10), (55, 54), (9, 54)], fill=WHITE)
            pencil.ellipse((28, 20, 36, 28), fill=BLACK)
            for end in ((32, 28), (25, 52), (40, 52)):
                pencil.line([(32, 40), end], fill=BLACK, width=4)
        case "danger":
            pencil.polygon(star(3, 30), fill=RED)
            pencil.polygon(star(3, 19), fill=WHITE)
            write("!", 22, BLACK, 4)
        case "road works":
            pencil.polygon(star(3, 30), fill=RED)
            pencil.polygon(star(3, 19), fill=YELLOW)
            pencil.polygon([(22, 46), (42, 46), (32, 32)], fill=BLACK)
        case "no parking":
            disc(pencil, 27, RED)
            disc(pencil, 20, BLUE)
            pencil.line((16, 16, 48, 48), fill=RED, width=7)
        case "end of limits":
            disc(pencil, 27, BLACK)
            disc(pencil, 24, WHITE)
            for o in (-3, 1, 5):
                pencil.line((14 + o, 50 + o, 46 + o, 12 + o), fill=BLACK, width=2)
    return image


def draw_sign(rng: Rng, label: int, style: Style) -> np.ndarray:
    """Draw the labelled sign; outside of plain style it is lit unevenly, faded and blurred."""
    _, back = two_colors(rng)
    mounted = (5, 0.0, (0.8, 1.05), 0.04) if style == "plain" else (14, 0.15, (0.65, 1.05), 0.12)
    board = np.asarray(warp(rng, sign(SIGNS[label]), *mounted), dtype=np.float32)
    share, color = board[..., 3:] / 255, board[..., :3]
    paper = background(rng, back, style)
    if style == "plain":
        return finish(rng, paper * (1 - share) + color * share, rng.uniform(2, 8))
    color = color * rng.uniform(0.3, 1.1) + rng.uniform(0, 40)  # light, then fading
    color = 0.75 * color + 0.25 * color.mean()
    image = paper * (1 - share) + color * share
    if rng.random() < 0.5:
        blur = ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.0)))
        picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        image = np.asarray(picture.filter(blur), dtype=np.float32)
    return finish(rng, image, rng.uniform(3, 14))
