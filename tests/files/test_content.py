"""A file is read no more often than it changes."""

import os

import pytest

from tsv_bench.files import content
from tsv_bench.files.content import MOST_BYTES, read_small, remembered_sha256, sha256, stamp


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    path, read = tmp_path / "file", []
    monkeypatch.setattr(content, "sha256", lambda p: read.append(p) or sha256(p))
    path.write_bytes(b"one")
    first = remembered_sha256(path)
    assert remembered_sha256(path) == first == sha256(path) and len(read) == 1
    (tmp_path / "link").symlink_to(path)
    assert remembered_sha256(tmp_path / "link") == first and len(read) == 1
    path.write_bytes(b"another")
    assert remembered_sha256(path) == sha256(path) != first and len(read) == 2


def test_a_stamp_tells_of_another_file_size_or_time(tmp_path):
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"one")
    other.write_bytes(b"one")
    found = [stamp(path)]
    os.utime(path, ns=(1, 1))
    found.append(stamp(path))
    path.write_bytes(b"two.")
    os.utime(path, ns=(1, 1))
    found.append(stamp(path))
    os.utime(other, ns=(1, 1))
    found.append(stamp(other))
    assert len(set(found)) == 4
    with pytest.raises(FileNotFoundError):
        stamp(tmp_path / "none")


def test_a_small_file_is_read_and_nothing_else(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert read_small(tmp_path / "file") == b"content"
    os.mkfifo(tmp_path / "pipe")  # would be waited for
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="is no regular file"):
            read_small(path)
    with (tmp_path / "file").open("r+b") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ValueError, match="16777217 bytes, not up to 16777216"):
        read_small(tmp_path / "file")
