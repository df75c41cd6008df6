"""Files of images, decoded in the formats that data sets have, and no larger than fits in memory.

Pillow knows formats that start other programs: it hands EPS to Ghostscript.
"""

import io
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_FILE = 2**30  # bytes
MAX_PIXELS = 2**27  # 0.4 GB as RGB
# Resized to the shorter side as backbones do it, a line of a million pixels takes gigabytes.
MAX_RATIO = 1000  # of the sides
ARCHIVE = re.compile(r"(zip|tar|gzip|bz2|xz|zstd|lz4)://")


def open_image(value: Mapping[str, Any], folder: Path, where: Callable[[], str]) -> Image.Image:
    """Return the image in bytes or at a path. Raises OSError with its file and row if damaged.

    The orientation in EXIF is ignored, as by the reference's loaders; the image feature of
    `datasets` would turn such photographs. ``where`` returns the image's place, for a message.
    """
    try:
        content = value["bytes"]
        return decode(read_image(value["path"], folder) if content is None else content)
    except UnidentifiedImageError as error:
        raise OSError(
            f"{where()} is not an image that can be read: it is damaged, or none of "
            f"{', '.join(FORMATS)}. Fetch or copy that file again, or convert it."
        ) from error
    except Exception as error:  # PIL raises nearly everything on damaged files
        raise OSError(
            f"{where()} is not an image that can be read ({type(error).__name__}: {error}). "
            f"Fetch or copy that file again."
        ) from error


def decode(content: bytes) -> Image.Image:
    """Return the image in a file's content.

    Raises ValueError if it is larger than images of tasks are, and nearly everything if it is
    damaged or of another format.
    """
    if len(content) > MAX_FILE:
        raise ValueError(f"its file has more than {MAX_FILE} bytes")
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    short, long = sorted(image.size)
    if short * long > MAX_PIXELS or long > MAX_RATIO * short:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels; expected are at most {MAX_PIXELS}, and "
            f"no side more than {MAX_RATIO} times as long as the other"
        )
    image.load()
    return image


def read_image(path: str, folder: Path) -> bytes:
    """Return the content of an image's file in ``folder``, which may lie in an archive there.

    Reads no more than `decode` takes. Raises ValueError if the file lies elsewhere: the path is
    found in the data, which may come from anyone.
    """
    from datasets.utils.file_utils import xopen  # reads inside archives, too

    *inner, outer = path.split("::")
    places = (os.path.abspath(folder), os.path.realpath(folder))
    within = any(Path(os.path.abspath(outer)).is_relative_to(place) for place in places)
    if "://" in outer or not within or not all(map(ARCHIVE.match, inner)):
        raise ValueError(f"it does not lie in {folder}, as all images of the data set do")
    with xopen(path, "rb") as file:
        return file.read(MAX_FILE + 1)
