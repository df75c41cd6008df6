"""Files are whole or not there, and read no more often than they change."""

import os

import pytest

from tsv_bench import files
from tsv_bench.files import remembered_sha256, replace_atomically, sha256, stamp


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    path, read = tmp_path / "file", []
    monkeypatch.setattr(files, "sha256", lambda p: read.append(p) or sha256(p))
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


def folder_of(name):
    def write(path):
        path.mkdir()
        (path / name).write_text(name)

    return write


def test_a_file_or_folder_is_there_when_it_is_whole(tmp_path):
    replace_atomically(tmp_path / "in" / "folder", folder_of("a"))
    assert (tmp_path / "in" / "folder" / "a").read_text() == "a"
    for text in ("old", "new"):
        replace_atomically(tmp_path / "in" / "file", lambda path, text=text: path.write_text(text))
        assert (tmp_path / "in" / "file").read_text() == text
    with pytest.raises(OSError):  # a folder with files is not replaced
        replace_atomically(tmp_path / "in" / "folder", folder_of("b"))
    assert (tmp_path / "in" / "folder" / "a").read_text() == "a"
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_write_that_fails_leaves_nothing(tmp_path, kind):
    def fail(path):
        if kind == "folder":
            folder_of("half")(path)
        else:
            path.write_text("half")
        raise KeyboardInterrupt

    (tmp_path / "out").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        replace_atomically(tmp_path / "out", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "old"
