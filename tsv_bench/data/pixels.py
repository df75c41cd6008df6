"""Decoded images of a split on disk: a memory-mapped .npy, and an .npz with labels and hash."""

import logging
import mmap
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tsv_bench.files import replace_atomically, sha256, stamp

log = logging.getLogger(__name__)

NUM_WAITING = 4  # images per thread that are read ahead
# Python does not name it before 3.13: Linux's on x86 and ARM.
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


@dataclass(frozen=True)
class Split:
    """Decoded images of one split, uint8 [images, 3, size, size], and their labels [images]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Undecoded:
    """An image that is opened by the thread which decodes it."""

    index: int  # its place in the split
    label: int
    open: Callable[[], Image.Image]


def read_pixels(path: Path) -> Split:
    """The split whose .npz is ``path``, its images as far as they are used."""
    with path.with_suffix(".npy").open("rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        # Copy on write: torch wants memory it may write to, the file must not change. Nothing is
        # reserved for such writes, else a file larger than the memory could not be mapped.
        flags = mmap.MAP_PRIVATE | NORESERVE
        mapped = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
        images = np.frombuffer(mapped, dtype, offset=file.tell()).reshape(shape)
    with np.load(path) as arrays:
        labels = torch.from_numpy(arrays["labels"])
    return Split(torch.from_numpy(images), labels)


def write_pixels(
    path: Path,
    images: Iterable[Undecoded],
    to_pixels: Callable[[Image.Image], Tensor],
    *,
    num_images: int,
    image_size: int,
    title: str,
) -> None:
    """Decode and transform a split in threads, holding no more than a few images at a time.

    ``to_pixels`` gives uint8 [3, image_size, image_size]. ``title`` goes in front of the bar.
    """
    shape = (num_images, 3, image_size, image_size)
    labels = np.full(num_images, -1, dtype=np.int64)

    def decode(image: Undecoded) -> np.ndarray:
        pixels = to_pixels(image.open()).numpy()
        assert pixels.shape == shape[1:] and pixels.dtype == np.uint8, (pixels.shape, pixels.dtype)
        return np.ascontiguousarray(pixels)

    def write(temporary: Path) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        # Written, not mapped: a full disk is then an error, and not the end of the process.
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            bar = tqdm(total=num_images, desc=title, unit="image", leave=False)
            with bar:
                for image, pixels in in_threads(decode, images):
                    file.seek(start + image.index * pixels.nbytes)
                    file.write(pixels.data)
                    labels[image.index] = image.label
                    bar.update()
        assert (labels >= 0).all(), "an image of the split was not there"

    replace_atomically(path.with_suffix(".npy"), write)
    record(path, labels, sha256(path.with_suffix(".npy")))


def in_threads(
    decode: Callable[[Undecoded], np.ndarray], images: Iterable[Undecoded]
) -> Iterator[tuple[Undecoded, np.ndarray]]:
    """Each image with its pixels, in order; PIL lets other threads run while it decodes."""
    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
    waiting: deque = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for image in images:
                waiting.append((image, pool.submit(decode, image)))
                if len(waiting) == NUM_WAITING * num_threads:
                    first, pixels = waiting.popleft()
                    yield first, pixels.result()
            while waiting:
                first, pixels = waiting.popleft()
                yield first, pixels.result()
        finally:
            for _, pixels in waiting:
                pixels.cancel()


def record(path: Path, labels: np.ndarray, digest: str) -> None:
    """Write what belongs to the pixels beside them: labels, hash, and the stamp of their file."""
    pixels = path.with_suffix(".npy")
    content = {"labels": labels, "sha256": digest, "stamp": size_and_time(pixels)}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # a path would get numpy's suffix appended
            np.savez(file, **content)

    replace_atomically(path, write)


def size_and_time(path: Path) -> list[int]:
    """Return a file's size in bytes and the time of its last change in nanoseconds."""
    _, *found = stamp(path)  # a copy has another inode
    return found


def pixel_damage(path: Path) -> str | None:
    """What is wrong with the pixels at ``path``; None when they are what was written.

    A file with the size and time that it was written with is not read, for tens of gigabytes take
    a minute; any other is hashed, and when nothing else has changed, as in a copy, recorded anew.
    """
    pixels = path.with_suffix(".npy")
    try:
        # Opened here: numpy leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as arrays:
            labels, digest = arrays["labels"], str(arrays["sha256"])  # zip checks what it reads
            recorded = arrays["stamp"].tolist() if "stamp" in arrays else None
        if recorded == size_and_time(pixels):
            return None
        if digest != sha256(pixels):
            return "other bytes than were written"
    except Exception as error:  # whatever a damaged file makes numpy, zipfile or zlib raise
        return f"{type(error).__name__}: {error}"
    try:
        record(path, labels, digest)
    except OSError:  # somebody else's cache, to be read only
        log.debug(f"{path} cannot be recorded anew; it is hashed again the next time")
    return None
