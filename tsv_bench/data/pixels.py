"""Decoded images on disk: for each split a memory-mapped .npy; an .npz has labels and checksums."""

import logging
import mmap
import os
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tsv_bench import bars
from tsv_bench.files import replace_atomically, sha256
from tsv_bench.process.cores import num_cores

log = logging.getLogger(__name__)

NUM_WAITING = 4  # images that are read ahead for each thread
BLOCK = 2**22  # bytes of a file that have a checksum of their own
# Python names it since 3.13. The number is Linux's, on x86 and ARM.
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
    """An image that the decoding thread opens."""

    index: int  # its place in the split
    label: int
    open: Callable[[], Image.Image]


def read_pixels(path: Path) -> Split:
    """Return the split whose labels are at ``path``, its images memory-mapped."""
    with path.with_suffix(".npy").open("rb") as file:
        shape, dtype = read_header(file)
        # Copy on write: torch wants memory that it may write to, and the file must not change.
        # No memory is reserved for writes, else a file larger than the memory could not be mapped.
        flags = mmap.MAP_PRIVATE | NORESERVE
        mapped = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
        images = np.frombuffer(mapped, dtype, offset=file.tell()).reshape(shape)
    with np.load(path) as arrays:
        labels = torch.from_numpy(arrays["labels"])
    return Split(torch.from_numpy(images), labels)


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape and type of the array in an npy; the file then stands at its first byte."""
    assert np.lib.format.read_magic(file) == (1, 0)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype


def write_pixels(
    path: Path,
    images: Iterable[Undecoded],
    to_pixels: Callable[[Image.Image], Tensor],
    *,
    num_images: int,
    image_size: int,
    title: str,
) -> None:
    """Decode a split in threads and write it to ``path``, with a few images in memory at a time.

    ``to_pixels`` makes an image uint8 [3, image_size, image_size]. ``title`` stands before the
    progress bar.
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
            bar = bars.bar(total=num_images, desc=title, unit="image", leave=False)
            with bar:
                for image, pixels in in_threads(decode, images):
                    file.seek(start + image.index * pixels.nbytes)
                    file.write(pixels.data)
                    labels[image.index] = image.label
                    bar.update()
        assert (labels >= 0).all(), "an image of the split was not there"

    replace_atomically(path.with_suffix(".npy"), write)
    record(path, labels)


def in_threads(
    decode: Callable[[Undecoded], np.ndarray], images: Iterable[Undecoded]
) -> Iterator[tuple[Undecoded, np.ndarray]]:
    """Yield each image with its pixels, in order. PIL releases Python's lock meanwhile."""
    waiting: deque = deque()
    cores = num_cores()  # asks the system, which takes as long as a small image
    with ThreadPoolExecutor(cores) as pool:
        try:
            for image in images:
                waiting.append((image, pool.submit(decode, image)))
                if len(waiting) == NUM_WAITING * cores:
                    first, pixels = waiting.popleft()
                    yield first, pixels.result()
            while waiting:
                first, pixels = waiting.popleft()
                yield first, pixels.result()
        finally:
            for _, pixels in waiting:
                pixels.cancel()


def record(path: Path, labels: np.ndarray) -> None:
    """Write labels [images] and the checksums of the pixels to ``path``."""
    content = {"labels": labels, "checksums": checksums(path.with_suffix(".npy"))}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # a path would get numpy's suffix appended
            np.savez(file, **content)

    replace_atomically(path, write)


def checksums(path: Path) -> np.ndarray:
    """Return the crc32 of each BLOCK bytes of a file, uint32 [blocks]; the last may be shorter.

    Blocks are read in threads, without Python's lock.
    """
    with path.open("rb") as file, ThreadPoolExecutor(num_cores()) as pool:

        def checksum(start: int) -> int:
            return zlib.crc32(os.pread(file.fileno(), BLOCK, start))

        starts = range(0, path.stat().st_size, BLOCK)
        return np.fromiter(pool.map(checksum, starts), dtype=np.uint32)


def pixel_damage(path: Path, num_classes: int) -> str | None:
    """Return what is wrong with the split at ``path``, or None if it is what was written.

    Labels are int64 [images] below ``num_classes``; another would never be right, without a word.
    Pixels are read as a whole, since a damaged file may have the size and the time that it had. For
    caches that an earlier version wrote, a sha256 is compared once and checksums are recorded.
    """
    pixels = path.with_suffix(".npy")
    try:
        # Opened here: numpy leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as arrays:
            found = {name: arrays[name] for name in arrays.files}  # zip checks what it reads
        if "checksums" in found:
            whole = np.array_equal(found["checksums"], checksums(pixels))
        else:
            whole = str(found["sha256"]) == sha256(pixels)
        if not whole:
            return "other bytes than were written"
        with pixels.open("rb") as file:
            shape, _ = read_header(file)
        labels = found["labels"]
        if labels.dtype != np.int64 or labels.shape != shape[:1]:
            return f"{labels.dtype} labels of shape {labels.shape} for {shape[0]} images"
        if odd := labels[(labels < 0) | (labels >= num_classes)].tolist():
            return f"the label {odd[0]}, where its classes allow 0 to {num_classes - 1}"
    except Exception as error:  # whatever a damaged file makes numpy, zipfile or zlib raise
        return f"{type(error).__name__}: {error}"
    if "checksums" not in found:
        try:
            record(path, found["labels"])
        except OSError:  # a cache that this user may only read
            log.debug(f"{path} cannot be recorded anew; its sha256 is compared again the next time")
    return None
