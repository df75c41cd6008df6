"""Letters, digits and symbols in the fonts that matplotlib ships."""

from functools import cache, partial

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image

from .canvas import (
    CANVAS,
    COLORS,
    SIZE,
    Rng,
    Style,
    background,
    blank,
    composite,
    font,
    jitter,
    two_colors,
    warp,
)

# In the order of the class names in conf/task/*.yaml.
ALPHABETS = {
    "greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "symbols": "♈♉♊♋♌♍♎♏♐♑♒♓♔♕♖♘♠♥♣♪☂☎☠☮☯⚓✂✈☃☢",
    "latin": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "cyrillic": "БГДЖЗИЛПФЦЧШЪЫЭЮЯ",
    "math": "∑∏∫∞√∂∇∈∅∩∪≈≠≤≥±∀∃⊕∝÷×∴⊂",
    "arrows": "←→↑↓↔↕↖↗↘↙↺↻",
    "hebrew": "אבגדהוזחטיכלמנסעפצקרשת",
    "armenian": "ԱԲԳԴԵԶԷԹԺԻԼԽԾԿՀՁ",
    "georgian": "აბგდევზთიკლმნოპჟ",
    "emoticons": "😀😃😉😐😞😢😠😮😴😛😎😘",
}

PRETRAIN_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
LATIN_FONTS = (
    "DejaVuSerif-Italic.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSansMono-BoldOblique.ttf",
    "DejaVuSerif-BoldItalic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralItalic.ttf",
    "STIXGeneralBolIta.ttf",
    "cmti10.ttf",
    "cmtt10.ttf",
    "cmr10.ttf",
)
UNICODE_FONTS = (
    "DejaVuSerif-Italic.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSansMono-BoldOblique.ttf",
    "DejaVuSerif-Bold.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralItalic.ttf",
    "STIXGeneralBol.ttf",
    "DejaVuSans-Oblique.ttf",
)
# Scripts that only this family covers: the task differs by slant and warp alone.
DEJAVU_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf",
)
TASK_FONTS = {
    "latin": LATIN_FONTS,
    "greek": UNICODE_FONTS,
    "cyrillic": UNICODE_FONTS,
    "math": UNICODE_FONTS,
}


@cache
def covered(name: str) -> frozenset[int]:
    """Return the code points that a font has a glyph for."""
    with TTFont(font(name, 8).path, lazy=True) as typeface:
        return frozenset(typeface.getBestCmap())


@cache
def fonts_of(character: str, pool: tuple[str, ...]) -> tuple[str, ...]:
    """Return the fonts of ``pool`` that have the character, or those of pretraining if none has."""
    return tuple(name for name in pool if ord(character) in covered(name)) or PRETRAIN_FONTS


@cache
def glyph_mask(character: str, name: str, points: int = 46) -> Image.Image:
    """Return the mask of a character, centered, about 48 of the canvas' 64 pixels wide or high."""
    image, pencil = blank()
    typeface = font(name, points)
    x0, y0, x1, y1 = pencil.textbbox((0, 0), character, font=typeface)
    scale = 48 / max(x1 - x0, y1 - y0, 1)
    if scale < 1 or scale > 1.3:
        typeface = font(name, max(8, int(points * min(scale, 2.0))))
        x0, y0, x1, y1 = pencil.textbbox((0, 0), character, font=typeface)
    corner = ((CANVAS - x1 + x0) / 2 - x0, (CANVAS - y1 + y0) / 2 - y0)
    pencil.text(corner, character, fill=255, font=typeface)
    return image


def draw_glyph(rng: Rng, character: str, style: Style, fonts: tuple[str, ...]) -> np.ndarray:
    """Draw a character; ``fonts`` are those of task style."""
    pool = fonts if style == "task" else PRETRAIN_FONTS
    names = fonts_of(character, pool)
    return painted(rng, glyph_mask(character, names[rng.integers(len(names))]), style)


def painted(rng: Rng, mask: Image.Image, style: Style) -> np.ndarray:
    """Warp a mask and paint it in one color on a background of another."""
    front, back = two_colors(rng)
    if style == "plain":
        mask, noise, blur = warp(rng, mask, 7, 0.05, (0.75, 1.1), 0.06), rng.uniform(2, 10), 0
    elif style == "mixed":
        mask = warp(rng, mask, 16, 0.15, (0.7, 1.15), 0.08)
        noise, blur = rng.uniform(2, 14), rng.choice([0, 0, 0.6])
    else:
        mask = warp(rng, mask, 15.4, 0.15, (0.75, 1.15), 0.07)
        noise, blur = rng.uniform(3, 14), rng.choice([0, 0, 0, 0.6])
    paper = background(rng, back, style)
    return composite(rng, mask, jitter(rng, COLORS[front]), paper, noise, blur)


def draw_letter(rng: Rng, label: int, style: Style, *, alphabet: str) -> np.ndarray:
    """Draw the labelled character of one of ALPHABETS."""
    fonts = TASK_FONTS.get(alphabet, DEJAVU_FONTS)
    return draw_glyph(rng, ALPHABETS[alphabet][label], style, fonts)


def draw_house_number(rng: Rng, label: int, style: Style) -> np.ndarray:
    """Draw a digit as on a house: outside of plain style its neighbors reach into the image."""
    pool = PRETRAIN_FONTS if style == "plain" else LATIN_FONTS
    name = pool[rng.integers(len(pool))]
    mask = glyph_mask(str(label), name)
    if style != "plain":
        wide = Image.new("L", (2 * CANVAS, CANVAS), 0)
        wide.paste(mask, (CANVAS // 2, 0))
        for offset in (-34, 34):
            if rng.random() < 0.6:
                neighbour = glyph_mask(str(int(rng.integers(10))), name)
                wide.paste(255, (CANVAS // 2 + offset, 0), neighbour)
        mask = wide.crop((CANVAS // 2, 0, CANVAS // 2 + CANVAS, CANVAS))
    mask = warp(rng, mask, 10, 0.15, (0.75, 1.1), 0.05)
    front, back = two_colors(rng)
    noise, blur = (6, 0) if style == "plain" else (rng.uniform(3, 14), rng.choice([0, 0, 0.6]))
    paper = background(rng, back, style)
    return composite(rng, mask, jitter(rng, COLORS[front], 25), paper, noise, blur)


def draw_written_digit(rng: Rng, label: int, style: Style) -> np.ndarray:
    """Draw a font's digit in white on black, skewed and coarse, for pretraining on ``digits``."""
    pool = PRETRAIN_FONTS if style == "plain" else LATIN_FONTS
    mask = glyph_mask(str(label), pool[rng.integers(len(pool))])
    skew = (7, 0.05, (0.75, 1.1), 0.06) if style == "plain" else (15, 0.35, (0.7, 1.2), 0.08)
    mask = warp(rng, mask, *skew)
    if style != "plain":  # by way of a few pixels, as the task's scans
        side = int(rng.integers(8, 14))
        mask = mask.resize((side, side), Image.Resampling.BOX)
        mask = mask.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    paper = np.zeros((SIZE, SIZE, 3), np.float32) + rng.uniform(0, 25)
    return composite(rng, mask, np.full(3, rng.uniform(180, 255)), paper, rng.uniform(1, 8))


LETTERS = {name: partial(draw_letter, alphabet=name) for name in ALPHABETS}
