"""Folders of small pictures by class, as users have them."""

import numpy as np
from PIL import Image

SIZE = (12, 9)  # pixels


def picture(path, channel, shade, **settings):
    """A plain picture, brighter in one channel."""
    pixels = np.full((SIZE[1], SIZE[0], 3), shade, dtype=np.uint8)
    pixels[..., channel % 3] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **settings)


def write(folder, classes, count=10, inside=""):
    """``folder``/``inside``/<class>/<number>.png; the number is the shade, too."""
    for channel, name in enumerate(classes):
        for number in range(count):
            picture(folder / inside / name / f"{number:03}.png", channel, number)
    return folder
