"""Data sets from the hub, or from a user's own folders in the same form, as sources of tasks."""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from tsv_bench.data.folders import Folder, open_folder
from tsv_bench.data.images import open_image
from tsv_bench.data.pixels import Undecoded
from tsv_bench.data.splits import num_val, train_and_val_rows
from tsv_bench.data.task import SPLITS
from tsv_bench.files import stamp

log = logging.getLogger(__name__)

NUM_SHOWN = 5  # class names in a message


@dataclass(frozen=True, kw_only=True)
class HubData:
    """A data set on disk, fetched from the hub or in a user's own folder.

    ``splits`` maps "train", "test" and perhaps "val" to the data set's own names. Without "val",
    validation images are taken from "train" by the paper's rule (splits.py). ``sizes`` are the
    images of those splits in the data set. Sizes, class names and labels are checked before any
    image is decoded.
    """

    repo: str  # id on the hub, or a folder of parquet files, images by class, or tars
    splits: Mapping[str, str]
    sizes: Mapping[str, int]
    num_classes: int
    class_names: Sequence[str] | None  # in the order of the labels; None: these have no names
    config: str | None = None
    image: str = "image"  # columns
    label: str = "label"
    transpose: bool = False  # swaps height and width of the transformed image
    patterns: Sequence[str] = ()  # files to fetch
    revision: str | None = None
    num_bytes: int | None = None
    licence: str | None = None

    # Part of a task's fingerprint: raised when the same files are read as other images.
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        plain = {"splits": dict(self.splits), "sizes": dict(self.sizes)}
        plain["patterns"] = tuple(self.patterns)
        plain["class_names"] = None if self.class_names is None else tuple(self.class_names)
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        names = set(self.splits)
        if not {"train", "test"} <= names <= set(SPLITS) or names != set(self.sizes):
            raise ValueError(
                f"{self.repo}: splits and sizes must both name train, test and perhaps val; "
                f"found {sorted(self.splits)} and {sorted(self.sizes)}."
            )
        if odd := [s for s, n in self.sizes.items() if not isinstance(n, int) or n < 1]:
            raise ValueError(
                f"{self.repo}: sizes.{odd[0]}={self.sizes[odd[0]]!r} is not a number of images."
            )
        if "val" not in self.splits and num_val(self.sizes["train"]) == 0:
            raise ValueError(
                f"{self.repo}: of {self.sizes['train']} images of train a tenth is to be set aside "
                f"for validation, which is none. Name a split for it as splits.val."
            )
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"{self.repo}: {len(self.class_names)} class_names, num_classes={self.num_classes}."
            )

    def __call__(self, split: str) -> Iterator[tuple[Image.Image, int]]:
        """Yield images as stored (not transposed) with their labels, in the split's order.

        All encoded images of the split are in memory meanwhile; the pixel cache uses `undecoded`.
        """
        for image in sorted(self.undecoded(split), key=lambda image: image.index):
            yield image.open(), image.label

    def num_images(self, split: str) -> int:
        """Return the number of images in one of our splits, after the validation split."""
        return len(self.rows(split))

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of the data set's own split that make up ours, in order [images]."""
        if split != "test" and "val" not in self.splits:
            train, val = train_and_val_rows(self.sizes["train"])
            return (train if split == "train" else val).numpy()
        return np.arange(self.sizes[split])

    def undecoded(self, split: str) -> Iterator[Undecoded]:
        """Yield the images of a split in the order of the files.

        Raises ValueError if labels or classes are not as expected, OSError if files cannot be read.
        """
        folder, own = self.open(), self.own(split)
        labels = self.checked_labels(folder, own)
        places = np.full(len(labels), -1)
        rows = self.rows(split)
        places[rows] = np.arange(len(rows))
        for row, values in enumerate(folder.rows(self.splits[own], [self.image])):
            if places[row] >= 0:
                value = values.pop(self.image)
                value = value if isinstance(value, dict) else {"bytes": value, "path": None}
                where = partial(folder.locate, self.splits[own], row, {**values, **value})
                yield Undecoded(
                    int(places[row]),
                    int(labels[row]),
                    partial(open_image, value, folder.path, where),
                )

    def open(self) -> Folder:
        """Open the folder with the data. Raises OSError if it is not here or damaged."""
        return open_folder(self.folder(), self.config, list(dict.fromkeys(self.splits.values())))

    def own(self, split: str) -> str:
        """Return the key in ``splits`` of the split that holds the images of ``split``."""
        return "train" if split == "val" and "val" not in self.splits else split

    def check(self, splits: Iterable[str]) -> None:
        """Check columns, classes and labels of these splits.

        Raises ValueError if they are not as expected, OSError if files are missing or damaged.
        """
        folder = self.open()
        for split in dict.fromkeys(map(self.own, splits)):
            self.checked_labels(folder, split)

    def checked_labels(self, folder: Folder, split: str) -> np.ndarray:
        """Return all labels of the data set's split as int64 [images].

        Raises ValueError if a column, a class name, the size or a label is not as expected.
        """
        own = self.splits[split]
        for column in (self.image, self.label):
            if column not in folder.features:
                raise ValueError(
                    f"{self.repo} has no column {column!r}; there are {', '.join(folder.features)}."
                )
        self.check_image(folder.features[self.image])
        self.check_classes(folder.features[self.label])
        found = [row[self.label] for row in folder.rows(own, [self.label])]
        if len(found) != self.sizes[split]:
            raise ValueError(
                f"{self.repo} has {len(found)} images in its split {own!r}, "
                f"{self.sizes[split]} expected. Another version of the data set? Fetch the right "
                f"one, or say its sizes in the task's yaml."
            )
        for row, label in enumerate(found):
            if label is None or not 0 <= label < self.num_classes:
                raise ValueError(
                    f"{self.repo}: row {row} of the split {own!r} has the label {label}; "
                    f"0 to {self.num_classes - 1} expected."
                )
        return np.asarray(found, dtype=np.int64)

    def check_image(self, feature: Any) -> None:
        """Check the type of the image column: `datasets.Image`, a dict of bytes and path, or bytes.

        Raises ValueError for any other.
        """
        import datasets

        plain = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
        binary = getattr(feature, "dtype", None) in ("binary", "large_binary")
        if not (plain or binary or isinstance(feature, datasets.Image)):
            raise ValueError(
                f"{self.repo}: the column {self.image!r} is {feature}; it must hold images, "
                f"or the bytes of their files. Another column?"
            )

    def check_classes(self, feature: Any) -> None:
        """Check the type of the label column and the order of its classes.

        Raises ValueError if labels are no whole numbers or the classes differ from ours.
        """
        import datasets

        dtype = getattr(feature, "dtype", str(feature))
        if not re.fullmatch(r"bool|u?int\d+", dtype):
            raise ValueError(
                f"{self.repo}: the column {self.label!r} is {dtype}; labels are ClassLabel, "
                f"int or bool. Another column?"
            )
        names = feature.names if isinstance(feature, datasets.ClassLabel) else None
        if names is None:
            log.info(f"{self.repo}: its labels have no names; only their range is checked")
            return
        if self.class_names is None:
            raise ValueError(
                f"{self.repo} calls its labels {', '.join(names[:NUM_SHOWN])}, in this order, and "
                f"the source in the task's yaml lists no names to compare them with. Write "
                f"class_names: ${{..class_names}} there."
            )
        expected = self.class_names
        if len(names) != self.num_classes:
            raise ValueError(
                f"{self.repo} has {len(names)} classes, {self.num_classes} expected. "
                f"It begins {names[:NUM_SHOWN]}; expected {list(expected[:NUM_SHOWN])}."
            )
        odd = [i for i, pair in enumerate(zip(names, expected, strict=True)) if differ(*pair)]
        if odd:
            shown = "; ".join(
                f"label {i} is {names[i]!r}, {expected[i]!r} expected" for i in odd[:NUM_SHOWN]
            )
            same = sorted(map(folded, names)) == sorted(map(folded, expected))
            raise ValueError(
                f"{self.repo} has {'its classes in another order' if same else 'other classes'}: "
                f"{shown} ({len(odd)} of {len(names)} differ). Fetch the data set that the task's "
                f"yaml names, or give it the class names in this data set's order."
            )

    def folder(self) -> Path:
        """Return the folder with the files. Raises OSError that says how to get them."""
        if not self.needs():
            return Path(self.repo).expanduser()
        from tsv_bench import hub

        return hub.require(self.needs()[0])

    def needs(self) -> list:
        """Return what to fetch from the hub: one `tsv_bench.hub.Need`, or none for a folder.

        Raises OSError if ``repo`` is neither a folder nor the name of a repository.
        """
        if Path(self.repo).expanduser().is_dir():
            return []
        if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", self.repo):
            raise OSError(f"there is no folder {self.repo}; no data set of the hub is named so.")
        from tsv_bench.hub import Need

        # The README has the names of classes and splits.
        patterns = (*self.patterns, "README.md") if self.patterns else ()
        return [
            Need(
                what=f"data of {self.repo.rpartition('/')[2]}", repo=self.repo, kind="dataset",
                patterns=patterns, revision=self.revision, num_bytes=self.num_bytes,
                licence=self.licence,
            )
        ]  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Return what determines images and labels, as plain data for the task's fingerprint.

        A folder counts by the names, sizes and times of its files.
        """
        names = ("splits", "sizes", "num_classes", "config", "image", "label", "transpose")
        place = Path(self.repo).expanduser()
        if place.is_dir():
            data = {"files": listing(place.resolve())}
        else:
            data = {"repo": self.repo, "revision": self.revision}
        return {**data, **{name: getattr(self, name) for name in names}}


def folded(name: str) -> str:
    """Return a class name without case, spaces, hyphens, slashes and underscores."""
    return re.sub(r"[_\-/\s]", "", name.casefold())


def differ(name: str, expected: str) -> bool:
    """Return whether two class names differ by more than their spelling."""
    return folded(name) != folded(expected)


@cache
def listing(folder: Path) -> str:
    """Return a hash of the names, sizes and times of a folder's files, hidden ones left out."""
    digest = hashlib.sha256()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            path = Path(place, name)
            _, num_bytes, changed = stamp(path)
            digest.update(f"{path.relative_to(folder)} {num_bytes} {changed}\n".encode())
    return digest.hexdigest()[:16]
