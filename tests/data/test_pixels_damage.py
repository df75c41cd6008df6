"""Pixels are compared with what was written, whatever their size and time; older caches, too."""

import hashlib
import os

import numpy as np
import pytest
from made_up.hub_data import image
from made_up.tasks import to_pixels

from tsv_bench.data import pixels
from tsv_bench.data.pixels import Undecoded, pixel_damage, read_pixels

NUM_IMAGES, NUM_CLASSES, SIZE = 9, 3, 6


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A written split, in eleven blocks."""
    monkeypatch.setattr(pixels, "BLOCK", 100)
    images = (
        Undecoded(row, row % NUM_CLASSES, lambda row=row: image(row)) for row in range(NUM_IMAGES)
    )
    pixels.write_pixels(
        tmp_path / "val.npz", images, to_pixels,
        num_images=NUM_IMAGES, image_size=SIZE, title="val",
    )  # fmt: skip
    return tmp_path / "val.npz"


def change(path, content):
    """Give a file another content; its time stays."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flipped(content, place):
    content = bytearray(content)
    content[place] ^= 1
    return bytes(content)


DAMAGES = {
    "first bit": lambda content: flipped(content, 0),
    "bit of the header": lambda content: flipped(content, 70),
    "bit of a pixel": lambda content: flipped(content, 700),
    "last bit": lambda content: flipped(content, -1),
    "blocks exchanged": lambda c: c[:200] + c[300:400] + c[200:300] + c[400:],
    "bytes exchanged": lambda c: c[:201] + c[202:203] + c[201:202] + c[203:],
    "zeros": lambda content: content[:400] + bytes(200) + content[600:],
    "too short": lambda content: content[:1000],
    "too long": lambda content: content + b"\0",
    "empty": lambda content: b"",
}


def as_older(path, **stamp):
    """Record the pixels as earlier versions did, with a sha256."""
    pixels_path = path.with_suffix(".npy")
    digest = hashlib.sha256(pixels_path.read_bytes()).hexdigest()
    labels = read_pixels(path).labels.numpy()
    np.savez(path, labels=labels, sha256=digest, **stamp)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_that_keeps_the_time_is_found(path, damage, older):
    pixels_path = path.with_suffix(".npy")
    if older:  # believed by size and time
        status = pixels_path.stat()
        as_older(path, stamp=[status.st_size, status.st_mtime_ns])
    content = pixels_path.read_bytes()
    change(pixels_path, DAMAGES[damage](content))
    assert pixel_damage(path, NUM_CLASSES) == "other bytes than were written"
    change(pixels_path, content)
    assert pixel_damage(path, NUM_CLASSES) is None


def test_damaged_labels_are_found(path):
    content = path.read_bytes()
    place = content.index(np.arange(NUM_IMAGES).astype(np.int64)[1:3].tobytes())
    change(path, flipped(content, place))
    assert "BadZipFile" in pixel_damage(path, NUM_CLASSES)


def test_a_copy_with_another_time_is_whole(path):
    os.utime(path.with_suffix(".npy"), ns=(1, 1))
    assert pixel_damage(path, NUM_CLASSES) is None


@pytest.fixture
def hashed(monkeypatch):
    calls, sha256 = [], pixels.sha256
    monkeypatch.setattr(pixels, "sha256", lambda path: calls.append(path.name) or sha256(path))
    return calls


@pytest.mark.parametrize("stamp", [{}, {"stamp": [1, 1]}])  # which came later
def test_a_cache_of_an_earlier_version_is_hashed_once(path, hashed, stamp):
    as_older(path, **stamp)
    labels = read_pixels(path).labels.tolist()
    assert pixel_damage(path, NUM_CLASSES) is None and pixel_damage(path, NUM_CLASSES) is None
    assert hashed == ["val.npy"]
    assert read_pixels(path).labels.tolist() == labels


def test_a_cache_of_an_earlier_version_that_is_not_ours_to_write_is_hashed_each_time(
    path, hashed, monkeypatch
):
    def refused(*_):
        raise PermissionError("read only")

    as_older(path)
    monkeypatch.setattr(pixels, "replace_atomically", refused)
    assert pixel_damage(path, NUM_CLASSES) is None and pixel_damage(path, NUM_CLASSES) is None
    assert hashed == ["val.npy", "val.npy"]
