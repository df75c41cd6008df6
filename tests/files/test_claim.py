"""One process at a time writes an output."""

import shutil
from pathlib import Path

import pytest
from made_up.replacing import claim_for_ever
from stand_ins.processes import Started

from tsv_bench.files import claim
from tsv_bench.files.claim import claimed


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(claim, "SECONDS", 0)


def test_an_output_is_claimed_once_and_nothing_is_left(tmp_path):
    output = tmp_path / "a" / "b" / "out"
    with claimed(output):
        with pytest.raises(ValueError, match="another process is writing .*out now. Wait"):
            with claimed(output):
                raise AssertionError("claimed twice")
        with claimed(output.with_name("other")):
            pass
    with claimed(output):
        pass
    assert not list(tmp_path.iterdir())


def test_folders_that_another_process_has_removed_are_no_error(tmp_path, monkeypatch):
    with claimed(tmp_path / "a" / "b" / "out"):
        shutil.rmtree(tmp_path / "a")
        monkeypatch.setattr(Path, "is_dir", lambda path: True)  # it was a moment ago


def test_folders_stay_that_something_was_written_to(tmp_path):
    with claimed(tmp_path / "a" / "out"):
        (tmp_path / "a" / "out").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_a_killed_process_has_claimed_nothing(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    with Started(folder, claim_for_ever, "out") as process:
        process.wait_until((folder / "said").exists)
        with pytest.raises(ValueError, match="another process"), claimed(folder / "out"):
            pass
    assert (folder / ".out.claim").exists()
    with claimed(folder / "out"):
        pass
    assert [path.name for path in folder.iterdir()] == ["said"]


def test_without_locks_nothing_is_claimed(tmp_path, monkeypatch):
    def no_locks(path):
        raise OSError("no locks here")

    monkeypatch.setattr(claim, "hold", no_locks)
    with claimed(tmp_path / "out"), claimed(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())
