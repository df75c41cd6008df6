"""What one process holds, no other gets; what a dead one held, everyone does."""

import os

import pytest
from made_up.replacing import hold_for_ever
from stand_ins.processes import Started

from tsv_bench.files.holding import hold


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_held_is_not_given_twice(tmp_path, kind):
    path = tmp_path / "held"
    path.mkdir() if kind == "folder" else path.touch()
    descriptor = hold(path)
    with pytest.raises(BlockingIOError):
        hold(path)
    os.close(descriptor)
    os.close(hold(path))


def test_a_killed_process_holds_nothing(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    with Started(folder, hold_for_ever, "taken") as process:
        process.wait_until((folder / "said").exists)
        with pytest.raises(BlockingIOError):
            hold(folder / "taken")
    os.close(hold(folder / "taken"))


def test_what_is_gone_a_link_or_a_pipe_is_not_held(tmp_path):
    with pytest.raises(FileNotFoundError):
        hold(tmp_path / "none")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError):
        hold(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    os.close(hold(tmp_path / "pipe"))  # without waiting for a writer


def test_what_was_replaced_meanwhile_is_not_held(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.touch()
    opened = os.open

    def replacing(*arguments):
        descriptor = opened(*arguments)
        path.rename(tmp_path / "old")
        os.close(opened(path, os.O_CREAT))
        return descriptor

    monkeypatch.setattr(os, "open", replacing)
    with pytest.raises(FileNotFoundError):
        hold(path)
