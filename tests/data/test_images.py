"""Images of anyone's making: decoded in the formats of tasks, bounded, and read from the data."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from made_up.hub_data import SIZE, encoded, hub_data, image, write_folders, write_parquet
from PIL import Image

from tsv_bench.data import images
from tsv_bench.data.images import FORMATS, decode, read_image

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(thesis) deletefile
%%EOF
"""


def png(width, height):
    """A file of a few bytes that says it has so many pixels."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def no_program(monkeypatch):
    """Fail if Pillow begins to decode EPS, which it does in another program."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("was started"))


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_of_tasks_are_decoded(kind):
    found = decode(encoded(3, kind=kind))
    exact = kind not in ("JPEG", "WEBP", "GIF")
    assert found.size == (SIZE, SIZE)
    assert not exact or np.array_equal(found.convert("RGB"), image(3))


@pytest.mark.parametrize("content", [EPS, encoded(3, kind="PCX"), encoded(3, kind="PDF"), b""])
def test_other_formats_are_not_even_opened(no_program, tmp_path, content):
    folder = write_parquet(tmp_path, {"train": 30, "test": 8}, content=lambda *_: content)
    with pytest.raises(OSError, match="row 0 is not an image .* none of JPEG, PNG.* or convert it"):
        list(hub_data(folder, {"train": 30, "test": 8})("test"))


def test_an_eps_that_is_called_png_starts_nothing(no_program, tmp_path):
    folder = write_folders(tmp_path, {"train": 30, "test": 8})
    next((folder / "test").rglob("*.png")).write_bytes(EPS)
    with pytest.raises(OSError, match="none of JPEG, PNG"):
        list(hub_data(folder, {"train": 30, "test": 8})("test"))


@pytest.mark.parametrize(
    ("width", "height"), [(12_000, 12_000), (1, 1001), (1_000_000, 3), (2**31 - 1, 2**31 - 1)]
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_is_too_large_is_refused_before_it_is_decoded(monkeypatch, width, height):
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises((ValueError, Image.DecompressionBombError), match="pixels"):
        decode(png(width, height))


def test_a_long_image_is_decoded():
    file = io.BytesIO()
    Image.new("RGB", (2, 2000)).save(file, "PNG")
    assert decode(file.getvalue()).size == (2, 2000)


def test_no_more_of_a_file_is_read_than_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_FILE", 100)
    (tmp_path / "a.png").write_bytes(b"x" * 10_000)
    content = read_image(str(tmp_path / "a.png"), tmp_path)
    assert len(content) == 101
    with pytest.raises(ValueError, match="its file has more than 100 bytes"):
        decode(content)


@pytest.mark.parametrize(
    "path",
    [
        "{outside}", "{folder}/../outside.png", "file://{outside}", "http://127.0.0.1:1/a.png",
        "{outside}::{folder}/a.zip", "http://127.0.0.1:1/a.png::{folder}/a.zip",
        "zip://a.png::{outside}", "zip://a.png::http://127.0.0.1:1/a.zip", "outside.png",
    ],
)  # fmt: skip
def test_an_image_outside_the_data_is_not_read(tmp_path, path):
    """A parquet file may say of an image that it lies anywhere."""
    folder, outside = tmp_path / "data", tmp_path / "outside.png"
    folder.mkdir()
    outside.write_bytes(encoded(1))
    with pytest.raises(ValueError, match="does not lie in"):
        read_image(path.format(folder=folder, outside=outside), folder)


def test_an_image_in_an_archive_or_behind_a_link_to_the_folder_is_read(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("b/c.png", encoded(1))
    (tmp_path / "link").symlink_to(folder)
    path = f"zip://b/c.png::{folder}/a.zip"
    assert read_image(path, folder) == read_image(path, tmp_path / "link") == encoded(1)
