"""Files and folders are whole or as they were: after errors, kills and a loss of power."""

import itertools
import os
import shutil
import signal

import pytest
import torch
from made_up.replacing import replace, write_for_ever
from safetensors.torch import save_file
from stand_ins.disk import Disk, full
from stand_ins.processes import Started

from tsv_bench.files import atomic
from tsv_bench.files.atomic import (
    paths_below,
    replace_atomically,
    sweep,
    temporary_beside,
    undo,
)


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


@pytest.mark.parametrize("function", ["hold", "rmtree"])
def test_an_interruption_before_and_after_a_write_leaves_nothing(tmp_path, monkeypatch, function):
    module = atomic if function == "hold" else shutil
    work, calls = getattr(module, function), itertools.count()

    def interrupted(*arguments, **settings):
        if not next(calls):
            raise KeyboardInterrupt
        return work(*arguments, **settings)

    monkeypatch.setattr(module, function, interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_atomically(tmp_path / "out", folder_of("new"))
    assert [*tmp_path.iterdir()] == [tmp_path / "out"][: function == "rmtree"]


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


def test_what_is_in_place_is_on_the_disk(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    replace_atomically(tmp_path / "in" / "file", lambda path: path.write_text("text"))
    replace_atomically(tmp_path / "in" / "folder", folder_of("a"))
    for name in ("file", "folder"):
        disk.assert_durable(tmp_path / "in" / name)
    assert ("sync", tmp_path) in disk.events  # it has the name of the new folder "in"


TOO_MUCH = torch.ones(100_000)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(bytes(400_000)),
        lambda path: torch.save(TOO_MUCH, path),
        lambda path: save_file({"w": TOO_MUCH}, path),
    ],
    ids=["bytes", "torch", "safetensors"],
)
def test_a_full_disk_is_said_whichever_library_writes(tmp_path, write):
    (tmp_path / "file").write_text("old")
    with full(), pytest.raises(OSError) as error:
        replace_atomically(tmp_path / "file", write)
    assert "File too large" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_what_can_be_made_again_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    replace_atomically(tmp_path / "file", lambda path: path.write_text("text"), durable=False)
    assert not [event for event in disk.events if event[0] == "sync"]


def test_what_a_killed_process_left_is_removed_and_what_others_hold_is_not(tmp_path, caplog):
    folder = tmp_path / "work"
    folder.mkdir()
    with Started(folder, write_for_ever, "file") as process:
        process.wait_until((folder / "said").exists)
        [left] = folder.glob(".file.*.tmp")
        sweep(folder)
        assert left.exists()
        process.send(signal.SIGKILL)
        process.wait()
        with temporary_beside(folder / "other") as held:
            replace_atomically(folder / "file", lambda path: path.write_text("whole"))
            assert held.exists() and not left.exists()
    assert caplog.text.count(f"removed {left}: a process that was killed") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["file", "said"]


def test_paths_below_a_folder_are_whole_ones(tmp_path):
    whole = [tmp_path / "a.json", tmp_path / "in" / "deep" / "b.json"]
    for path in whole:
        replace_atomically(path, lambda new: new.touch())
    with temporary_beside(whole[1]) as temporary:  # as in the middle of another process' write
        (temporary / "b.json").touch()
        assert sorted(paths_below(tmp_path, ".json")) == whole
        found = paths_below(tmp_path, (".txt", ".json"))
        assert next(found) == whole[0]
        shutil.rmtree(tmp_path / "in")  # by another process
        assert [*found] == []


def test_an_empty_one_goes_without_a_word(tmp_path, caplog):
    """Its owner may be alive, and about to hold it."""
    (tmp_path / ".a.0123abcd.tmp").mkdir()
    replace_atomically(tmp_path / "a", lambda path: path.write_text("new"))
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and not caplog.records


def test_a_folder_that_was_empty_and_another_process_removed_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "make_folder", lambda folder: None)
    replace_atomically(tmp_path / "in" / "a", lambda path: path.touch())
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["a"]


def test_what_others_have_named_so_is_left_alone(tmp_path):
    names = [".a.tmp", ".a.12345678", "a.12345678.tmp", ".a.1234567g.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ".a.12345678.tmp").symlink_to(tmp_path / ".a.tmp")
    before = sorted(tmp_path.iterdir())
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


OURS = ("weights", "index", "older")  # of an output that a user has added to


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "work" / "out"
    (folder / "eval").mkdir(parents=True)
    for name in (*OURS, "README.md", "eval/scores"):
        (folder / name).write_text("old")
    return folder


def texts(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


REPLACED = {
    "weights": "new", "index": "new", "more": "new", "README.md": "old", "eval/scores": "old",
}  # fmt: skip


def test_our_files_are_replaced_and_a_users_stay(output, monkeypatch):
    disk = Disk(monkeypatch)
    replace(output, OURS)
    assert texts(output) == REPLACED
    for name in ("weights", "index", "more"):
        disk.assert_durable(output / name)
    assert os.listdir(output.parent) == ["out"]


def test_a_users_file_of_a_new_ones_name_is_in_the_way(output):
    before = texts(output)
    with pytest.raises(FileExistsError, match="index is in the way: .* written by somebody else"):
        replace(output, ["weights"])
    assert texts(output) == before and os.listdir(output.parent) == ["out"]


@pytest.mark.parametrize("call", range(1, 7))
def test_an_interruption_brings_back_what_was_there(output, monkeypatch, call):
    before, calls, rename = texts(output), [], os.rename

    def interrupted(*paths):
        calls.append(paths)
        if len(calls) == call:
            raise KeyboardInterrupt
        rename(*paths)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace(output, OURS)
    assert texts(output) == before and os.listdir(output.parent) == ["out"]


@pytest.mark.parametrize("call", range(1, 7))
def test_the_next_one_brings_back_what_a_kill_cut_short(output, caplog, call):
    before, folder = texts(output), output.parent
    with Started(folder, replace, "out", OURS, hold=("os", "rename", call)) as process:
        process.wait_until_held()
        process.send(signal.SIGKILL)
        process.wait()
    assert call == 1 or texts(output) != before
    sweep(folder)
    assert texts(output) == before and os.listdir(folder) == ["out"]
    assert f"{output} was being replaced by a process that was killed: restored" in caplog.text


def test_a_replacement_that_was_whole_stays(output, monkeypatch):
    folder = output.parent
    with Started(folder, replace, "out", OURS, hold=("shutil", "rmtree", 1)) as process:
        process.wait_until_held()
        process.send(signal.SIGKILL)
        process.wait()
    sweep(folder)
    assert texts(output) == REPLACED and os.listdir(folder) == ["out"]


def test_what_an_earlier_version_moved_aside_is_brought_back(tmp_path, caplog):
    for name in (".out.12345678.old", ".other.12345678.old", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    sweep(tmp_path)
    assert (tmp_path / "out" / "weights").read_text() == ".out.12345678.old"
    assert (tmp_path / "other" / "weights").read_text() == "other"
    assert (tmp_path / ".other.12345678.old").exists(), "nobody knows what else is in it"
    assert caplog.text.count("was moved aside by a process that was killed: restored") == 1


def test_there_is_nothing_to_take_back_before_the_journal_is_whole(tmp_path):
    assert undo(tmp_path) is None
    (tmp_path / "replacing.json").write_text('{"output": "o')
    assert undo(tmp_path) is None
