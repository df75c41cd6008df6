"""Data sets on disk: built once with `datasets`, decoded once to memory-mapped pixels.

    <folder>/<task>-<fingerprint>/            a `datasets` DatasetDict with train, val and test
    <folder>/<task>-<fingerprint>/pixels-30/  each split's images as uint8, n x 3 x 30 x 30

Everything is written under a temporary name and renamed when whole, so a half-built cache is never
found under its real name; of two processes that want the same one, the second waits for the first.
"""

import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tsv_bench.data.task import SPLITS, Task
from tsv_bench.files import replace_atomically, sha256

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Split:
    """Decoded images of one split, uint8 [images, 3, size, size], and their labels [images]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


# Splits that this process has opened: a comparison of seven methods reads each once.
_opened: dict[tuple, Split] = {}


def load_split(
    task: Task,
    split: str,
    *,
    folder: Path,
    image_size: int,
    to_pixels: Callable[[Image.Image], Tensor],
) -> Split:
    """One split of a task, from the caches where they are whole.

    ``to_pixels`` is the backbone's geometry: an image to uint8 [3, image_size, image_size].
    A damaged cache is built again, with a warning.
    """
    assert split in SPLITS, split
    home = folder / f"{task.name}-{task.fingerprint}"
    key = (home.resolve(), split, image_size)
    if key not in _opened:
        path = home / f"pixels-{image_size}" / f"{split}.npz"
        if pixel_damage(path):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f".{home.name}.lock"):
                if problem := pixel_damage(path):  # nobody made it while we waited
                    if path.exists():
                        log.warning(
                            f"the decoded images of {task.name} at {path} are damaged ({problem}); "
                            f"decoding them again"
                        )
                    write_pixels(path, open_dataset(task, home)[split], to_pixels)
        _opened[key] = read_pixels(path)
    return _opened[key]


def read_pixels(path: Path) -> Split:
    # Copy on write: torch wants memory it may write to, the file must not change.
    images = np.load(path.with_suffix(".npy"), mmap_mode="c")
    with np.load(path) as arrays:
        labels = torch.from_numpy(arrays["labels"])
    return Split(torch.from_numpy(np.asarray(images)), labels)


def write_pixels(path: Path, dataset, to_pixels: Callable[[Image.Image], Tensor]) -> None:
    """Decode and transform every image of a split: images to .npy, labels and hash to .npz."""
    images = torch.stack([to_pixels(image) for image in dataset["image"]]).numpy()
    labels = np.asarray(dataset["label"], dtype=np.int64)
    replace_atomically(path.with_suffix(".npy"), lambda p: save(np.save, p, images))
    digest = sha256(path.with_suffix(".npy"))
    replace_atomically(path, lambda p: save(np.savez, p, labels=labels, sha256=digest))


def save(write: Callable, path: Path, *args, **kwargs) -> None:
    with path.open("wb") as file:  # a path would get numpy's suffix appended
        write(file, *args, **kwargs)


def pixel_damage(path: Path) -> str | None:
    """What is wrong with the pixels at ``path``; None when they are what was written."""
    try:
        # Opened here: numpy leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as arrays:
            arrays["labels"]  # zip checks what it reads
            if str(arrays["sha256"]) != sha256(path.with_suffix(".npy")):
                return "other bytes than were written"
    except Exception as error:  # whatever a damaged file makes numpy, zipfile or zlib raise
        return f"{type(error).__name__}: {error}"
    return None


def open_dataset(task: Task, home: Path):
    """The task's DatasetDict at ``home``, built first where it is missing or damaged.

    Nobody else may be at work on it: the caller holds its lock.
    """
    import datasets  # a second to import, and not needed when the pixels are there

    datasets.disable_progress_bars()
    for stale in home.parent.glob(f".{home.name}.*.tmp"):
        log.warning(f"the data of {task.name} at {stale} were left half built; building them again")
        shutil.rmtree(stale)
    if not home.exists():
        build_dataset(task, home)
    elif problem := damage(home):
        log.warning(f"the data cache of {task.name} at {home} is damaged ({problem}); rebuilding")
        shutil.rmtree(home)
        build_dataset(task, home)
    return datasets.load_from_disk(str(home))


def damage(home: Path) -> str | None:
    """What is wrong with a data set on disk; None when every file is as it was written."""
    try:
        manifest = json.loads((home / MANIFEST).read_text())
        for name, digest in manifest.items():
            if sha256(home / name) != digest:
                return f"{name} has other bytes than were written"
    except (OSError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def build_dataset(task: Task, home: Path) -> None:
    """Draw or collect every split and write it as a `datasets` DatasetDict."""
    import datasets

    log.info(f"building the data of {task.name}")
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=list(task.class_names))
    )
    splits = {}
    for split in SPLITS:
        bar = tqdm(task.source(split), desc=f"{task.label}: {split} images", leave=False)
        pairs = list(bar)
        if not pairs:
            raise ValueError(f"the source of {task.name} yields no {split} images.")
        images = [i if isinstance(i, Image.Image) else Image.fromarray(i) for i, _ in pairs]
        columns = {"image": images, "label": [label for _, label in pairs]}
        splits[split] = datasets.Dataset.from_dict(columns, features=features)
    building = home.with_name(f".{home.name}.{secrets.token_hex(4)}.tmp")
    try:
        datasets.DatasetDict(splits).save_to_disk(str(building))
        files = sorted(path for path in building.rglob("*") if path.is_file())
        manifest = {str(path.relative_to(building)): sha256(path) for path in files}
        (building / MANIFEST).write_text(json.dumps(manifest, indent=1))
        os.rename(building, home)
    finally:
        shutil.rmtree(building, ignore_errors=True)
