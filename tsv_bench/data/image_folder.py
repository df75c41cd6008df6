"""A folder of a user's own images as the source of a task: one folder a class.

    pics/<class>/*.jpg                       split here
    pics/train/<class>/, pics/test/<class>/  split by its owner; pics/val/<class>/ may be there, too

Where there is no test split, a fifth of each class is set aside for it, and where there is no
validation split a tenth: those whose names have the smallest hashes. So the same folder is split
in the same way everywhere, and an image that is added moves few others.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tsv_bench.data.task import SPLITS
from tsv_bench.files import stamp

if TYPE_CHECKING:
    from PIL import Image

    from tsv_bench.data.pixels import Undecoded

# What data.images decodes.
SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
}  # fmt: skip
NAMES_OF_SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "val": "val",
    "valid": "val", "validation": "val",
}  # fmt: skip
SHARES = {"test": 5, "val": 10}  # one of so many images of a class
NUM_SHOWN = 5  # names in a message


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Images that are counted, split and named by where they lie.

    Labels go by the sorted names of the classes' folders. ``class_names`` are what prompts call
    them: {folder: name}, or a list of names that are those of the folders but for their spelling,
    in any order. None: the names of the folders, with spaces for underscores.
    """

    folder: str
    class_names: Mapping[str, str] | Sequence[str] | None = None

    version: ClassVar[int] = 1  # part of a task's fingerprint: raised when images are split anew
    transpose: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", self._named(self.class_names))
        if len(self.classes) < 2:
            raise ValueError(f"{self.folder} has one class, {self.classes[0]!r}; a task has two.")
        for name, counts in zip(self.classes, self.counts, strict=True):
            if lacking := [split for split in SPLITS if not counts[split]]:
                raise ValueError(
                    f"{self.folder}: the class {name!r} has {sum(counts.values())} images, and "
                    f"none for {lacking[0]}. Each class needs one at least for each of "
                    f"{', '.join(SPLITS)}. Add some, or take its folder away."
                )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes' folders, in the order of their labels."""
        found = {name for place in self._split_folders.values() for name in folders_in(place)}
        if "train" in self._split_folders:
            known = set(folders_in(self._split_folders["train"]))
            for split, place in self._split_folders.items():
                if odd := sorted(set(folders_in(place)) ^ known):
                    raise ValueError(
                        f"{self.folder}: {split} and train do not have the same classes: "
                        f"{odd[0]!r} is in one of them only ({len(odd)} such). Each class is a "
                        f"folder of that name in both."
                    )
        return tuple(sorted(found))

    @cached_property
    def _split_folders(self) -> dict[str, Path]:
        """Split -> its folder; {"": the folder} if it has none of its own.

        Raises OSError if there is no such folder, ValueError if it does not hold classes.
        """
        place = Path(self.folder).expanduser()
        if not place.is_dir():
            raise OSError(f"there is no folder {self.folder}.")
        inside = folders_in(place)
        if not inside:
            loose = sum(is_image(name) for name in os.listdir(place))
            raise ValueError(
                f"{self.folder} has no folder for each class"
                f"{f', but {loose} images outside of any' if loose else ''}. Expected is "
                f"{self.folder}/<class>/*.jpg, or {self.folder}/train/<class>/ and "
                f"{self.folder}/test/<class>/."
            )
        named = {name: NAMES_OF_SPLITS[name.lower()] for name in inside if splits_by(name)}
        # A class may be called train, of vehicles, but not beside one that is called test.
        if "train" not in named.values() or len(named) == 1 < len(inside):
            return {"": place}
        splits = {split: place / name for name, split in named.items()}
        if len(splits) < len(inside) or "val" in splits and "test" not in splits:
            raise ValueError(
                f"{self.folder} has the folders {shown(inside)}. Expected are train and test, "
                f"perhaps val, and no other; or one for each class. If val is what you test on, "
                f"call it test."
            )
        return splits

    @cached_property
    def images(self) -> dict[str, list[tuple[str, int]]]:
        """Split -> its images' paths and labels, class by class."""
        found: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
        whole = self._split_folders.get("") or self._split_folders["train"]
        for label, name in enumerate(self.classes):
            rest = sorted(images_in(whole / name), key=partial(hashed, home=whole))
            num_images = len(rest)
            for split, share in SHARES.items():
                if split in self._split_folders:
                    chosen = images_in(self._split_folders[split] / name)
                else:
                    count = max(1, num_images // share)
                    chosen, rest = rest[:count], rest[count:]
                found[split] += [(str(path), label) for path in sorted(chosen)]
            found["train"] += [(str(path), label) for path in sorted(rest)]
        return found

    @cached_property
    def counts(self) -> list[dict[str, int]]:
        """For each label, its images by split."""
        counts = [dict.fromkeys(SPLITS, 0) for _ in self.classes]
        for split, images in self.images.items():
            for _, label in images:
                counts[label][split] += 1
        return counts

    @cached_property
    def left_out(self) -> list[str]:
        """Files that are not used: no images by their names, or outside of the classes."""
        places = self._split_folders.values()
        within = [f for place in places for name in self.classes for f in files_in(place / name)]
        outside = [f for place in places for f in place.iterdir() if f.is_file()]
        found = [f for f in within if not is_image(f.name)] + outside
        return sorted(str(f) for f in found if not f.name.startswith("."))

    def _named(self, given: Mapping | Sequence | None) -> tuple[str, ...]:
        """Return the names that prompts use, in the order of the labels.

        Raises ValueError if ``given`` does not say plainly which folder each is of.
        """
        if given is None:
            return tuple(name.replace("_", " ") for name in self.classes)
        if not isinstance(given, Mapping):
            folded = {fold(str(name)): name for name in given}
            if len(folded) < len(given) or set(folded) != set(map(fold, self.classes)):
                raise ValueError(
                    f"the class_names of {self.folder} are not those of its folders, so their "
                    f"order says nothing. Say which is which, as in class_names: "
                    f"{{{self.classes[0]}: {next(iter(given), 'name')}, ...}}. The folders are "
                    f"{shown(self.classes)}; found {shown(list(map(str, given)))}."
                )
            return tuple(folded[fold(name)] for name in self.classes)
        names = {str(folder): name for folder, name in given.items()}
        if odd := sorted(set(names) ^ set(self.classes)):
            where = "no folder" if odd[0] in names else "a folder that class_names do not name"
            raise ValueError(
                f"class_names of {self.folder}: {odd[0]!r} is {where}. The folders are "
                f"{shown(self.classes)}. A name like 007 or no stands in quotes."
            )
        return tuple(names[name] for name in self.classes)

    def __call__(self, split: str) -> "Iterator[tuple[Image.Image, int]]":
        """Yield the images of a split with their labels, in order."""
        for image in self.undecoded(split):
            yield image.open(), image.label

    def num_images(self, split: str) -> int:
        return len(self.images[split])

    def undecoded(self, split: str) -> "Iterator[Undecoded]":
        """Yield the images of a split, to be opened by the thread that decodes them."""
        from tsv_bench.data.pixels import Undecoded  # here: a task is described without torch

        for index, (path, label) in enumerate(self.images[split]):
            yield Undecoded(index, label, partial(opened, path))

    def check(self, splits: Iterable[str]) -> None:
        """Raise OSError if an image of these splits is gone since they were counted."""
        for split in splits:
            for path, _ in self.images[split]:
                if not os.path.exists(path):
                    raise OSError(f"{path} was there and is no longer. Start again, or restore it.")

    def settings(self) -> dict[str, Any]:
        """Return what determines images and labels, as plain data for the task's fingerprint.

        Files count by their names, sizes and times, wherever the folder lies.
        """
        return self._settings

    @cached_property
    def _settings(self) -> dict[str, Any]:
        digest, home = hashlib.sha256(), Path(self.folder).expanduser()
        for split, images in self.images.items():
            for path, label in images:
                _, num_bytes, changed = stamp(Path(path))
                name = Path(path).relative_to(home).as_posix()
                digest.update(f"{split} {label} {name} {num_bytes} {changed}\n".encode())
        return {"images": digest.hexdigest()[:16]}


def opened(path: str) -> "Image.Image":
    """Return an image, turned as its EXIF says. Raises OSError that names it if it is damaged."""
    from PIL import ImageOps

    from tsv_bench.data.images import MAX_FILE, open_image

    with open(path, "rb") as file:
        content = file.read(MAX_FILE + 1)
    image = open_image({"bytes": content, "path": path}, Path(path).parent, lambda: path)
    return ImageOps.exif_transpose(image)


def folders_in(place: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, hidden ones left out."""
    with os.scandir(place) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def files_in(place: Path) -> Iterator[Path]:
    """Yield the files in a folder and those below, hidden ones left out."""
    for above, folders, files in os.walk(place, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(above, name) for name in files if not name.startswith("."))


def images_in(place: Path) -> list[Path]:
    """Return the images in a folder and those below."""
    return [path for path in files_in(place) if is_image(path.name)]


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def splits_by(name: str) -> bool:
    return name.lower() in NAMES_OF_SPLITS


def hashed(path: Path, home: Path) -> str:
    """Return the hash by which images are split: of the path from ``home``."""
    return hashlib.sha256(path.relative_to(home).as_posix().encode()).hexdigest()


def fold(name: str) -> str:
    """Return a name without case, spaces, hyphens and underscores."""
    return "".join(c for c in name.casefold() if not (c.isspace() or c in "_-/"))


def shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return ", ".join(names[:NUM_SHOWN]) + more
