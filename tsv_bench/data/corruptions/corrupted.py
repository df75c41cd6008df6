"""Corrupted copies of images, the same every time: what chance decides goes by an image's place."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsv_bench.data.corruptions.definitions import CORRUPTIONS, SEVERITIES, VERSION

PART = 500  # images that are corrupted at a time
TINY = 1e-6  # of a step between bytes; far above the rounding of float64


@dataclass(frozen=True)
class Corruptions:
    """Which corruptions test images are evaluated under, beside as they are."""

    names: Sequence[str]
    severity: int

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown corruption, one named twice, or another severity."""
        if odd := [name for name in self.names if name not in CORRUPTIONS]:
            raise ValueError(
                f"evaluation.corruptions names {odd[0]!r}, which is no corruption; there are "
                f"{', '.join(CORRUPTIONS)}."
            )
        if twice := [name for name in self.names if list(self.names).count(name) > 1]:
            raise ValueError(f"evaluation.corruptions names {twice[0]} twice. Name each once.")
        if type(self.severity) is not int or self.severity not in SEVERITIES:
            raise ValueError(
                f"evaluation.severity={self.severity!r} is not one of 1, 2, 3, 4 and 5, for which "
                f"corruptions are defined."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """All that may change the images."""
        return {"names": list(self.names), "severity": self.severity, "version": VERSION}


def corrupt(images: np.ndarray, name: str, severity: int, start: int = 0) -> np.ndarray:
    """Return images under a corruption, uint8 [images, 3, size, size], as they came.

    ``severity`` is 1 to 5; 0 changes nothing. Random numbers go by the corruption and by the place
    of an image in its split, where the first is at ``start``: not by the severity or the task.
    """
    if severity == 0:
        return images.copy()
    kind = CORRUPTIONS[name]
    places = range(start, start + len(images))
    rngs = [np.random.default_rng([zlib.crc32(name.encode()), place]) for place in places]
    x = np.moveaxis(images, 1, -1) / 255.0
    changed = kind.function(x, kind.numbers(x.shape[1], severity), rngs)
    # Cut off, not rounded, as the authors do; but whole numbers stay, however they were rounded.
    cut = (np.clip(changed, 0, 1) * 255 + TINY).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(cut, -1, 1))


def in_parts(
    images: np.ndarray, name: str, severity: int, part: int = PART
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the rows of a part of the images and this part, corrupted: memory holds no more."""
    for start in range(0, len(images), part):
        rows = slice(start, min(start + part, len(images)))
        yield rows, corrupt(np.asarray(images[rows]), name, severity, start)
