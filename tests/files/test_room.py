"""A folder that cannot be written to, or has no room, is found before any work."""

import pytest

from tsv_bench.files.room import check_place, check_room


def test_a_folder_with_room_passes_and_is_left_empty(tmp_path):
    check_room(tmp_path / "new" / "folder", 1)
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_what_a_kill_left_there_goes(tmp_path, caplog):
    half = tmp_path / ".out.0123abcd.tmp" / "out"
    half.parent.mkdir()
    half.touch()
    check_room(tmp_path, 1)
    assert not list(tmp_path.iterdir()) and f"removed {half.parent}" in caplog.text


def test_room_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="MB free, 1000000000000000000 MB are needed. Make room"):
        check_room(tmp_path, 10**24)


def test_a_place_that_is_not_made_yet_is_not_made(tmp_path):
    check_place(tmp_path / "a" / "b", 1)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_place(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to .*file \(it is a file\)\. .*with output="):
        check_place(tmp_path / "file" / "out", 1)
