"""Originals: the masks of one picture by one maker, which stay in one split, and what is drawn.

Augmentation makes many images of few originals. So makers are split, not images: no typeface and no
set of icons is in two splits. Makers copy each other, though. An original of a later split that
looks like one of an earlier split is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tsv_bench.data.embedded import CAMERAS, image_rng
from tsv_bench.data.embedded.canvas import CANVAS
from tsv_bench.data.embedded.glyphs import painted
from tsv_bench.data.task import SPLITS

FIGURE = 48  # pixels of the canvas' 64 that the longer side of a mask takes
CODE = 32  # rows and columns of a mask when it is compared
SAME = 0.95  # correlation of two masks from which they are one picture

# Label -> maker -> masks.
Masks = Mapping[int, Mapping[str, Sequence[Image.Image]]]


def mask_of(font: str, character: str) -> Image.Image | None:
    """Return the mask of a character, centered on the canvas; None if nothing is drawn."""
    wide = Image.new("L", (4 * CANVAS, 4 * CANVAS), 0)
    typeface = _typeface(font)
    ImageDraw.Draw(wide).text((CANVAS, CANVAS), character, fill=255, font=typeface)
    if (box := wide.getbbox()) is None:
        return None
    ink = wide.crop(box)
    sides = [max(1, round(side * FIGURE / max(ink.size))) for side in ink.size]
    image = Image.new("L", (CANVAS, CANVAS), 0)
    corner = tuple((CANVAS - side) // 2 for side in sides)
    image.paste(ink.resize(sides, Image.Resampling.BOX), corner)
    return image


@cache
def _typeface(font: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font, 2 * FIGURE)


def distinct(splits: Mapping[str, Masks]) -> dict[str, Masks]:
    """Return the masks of each split without those that look like one of an earlier split."""
    seen = np.empty((0, CODE**2))
    kept: dict[str, Masks] = {}
    for split in SPLITS:
        kept[split] = {}
        new = [seen]
        for label, makers in splits[split].items():
            for maker, masks in makers.items():
                codes = np.stack([_code(mask) for mask in masks])
                fresh = (codes @ seen.T).max(axis=1, initial=-1) < SAME
                if fresh.any():
                    of_label = kept[split].setdefault(label, {})
                    of_label[maker] = [
                        m for m, is_fresh in zip(masks, fresh, strict=True) if is_fresh
                    ]
                    new.append(codes[fresh])
        seen = np.concatenate(new)
    return kept


def _code(mask: Image.Image) -> np.ndarray:
    """Return a mask reduced to 1,024 numbers of mean zero and length one."""
    small = np.asarray(mask.resize((CODE, CODE), Image.Resampling.BOX), dtype=np.float64).ravel()
    small -= small.mean()
    return small / max(np.linalg.norm(small), 1e-12)


def images(
    masks: Masks, task: str, split: str, num_images: int, camera: str | None, seed: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield images, uint8 [30, 30, 3], and labels: balanced over the labels that there are.

    Every image follows from the task, the split, the seed and its place alone. Makers are equally
    likely, however many masks of a picture they have. Raises ValueError if there is no mask, or no
    such camera.
    """
    if not masks:
        raise ValueError(
            f"{task} has no {split} images: its makers have none of its pictures, or all look like "
            f"those of an earlier split. Name other sets or typefaces for {split}."
        )
    if camera not in (None, *CAMERAS):
        raise ValueError(f"no camera is {camera!r}; there are {', '.join(CAMERAS)}, and null.")
    present = np.array(sorted(masks))
    labels = present[np.arange(num_images) % len(present)]
    labels = image_rng("order", task, split, seed).permutation(labels)
    for index, label in enumerate(labels):
        rng = image_rng(task, split, seed, index)
        makers = sorted(masks[label])
        of_maker = masks[label][makers[rng.integers(len(makers))]]
        mask = of_maker[rng.integers(len(of_maker))]
        image = painted(rng, mask, "task")
        yield CAMERAS[camera](rng, image) if camera else image, int(label)
