"""Checkpoint files: lazy, atomic, and named when something is wrong with them."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from unittest import mock

import made_up.tasks
import pytest
import torch
from safetensors.torch import save_file

from tsv_bench.checkpoints import checkpoint
from tsv_bench.checkpoints.checkpoint import load_record, save_checkpoint
from tsv_bench.checkpoints.source import Folder
from tsv_bench.files import check_room, replace_atomically
from tsv_bench.files.lease import LeaseLost
from tsv_bench.models.training import load_state, save_state
from tsv_bench.state_dicts.state_dict import open_state_dict


def state():
    return {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3), "n": torch.tensor(7)}


def test_checkpoint_comes_back_with_its_record(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    written = save_checkpoint(path, state(), {"settings": {"seed": 0}})
    assert load_record(path) == written
    assert written["settings"] == {"seed": 0} and written["sha256"] == checkpoint.sha256(path)
    found = open_state_dict(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in state().items())
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.json", "a.safetensors"]


@pytest.mark.parametrize("content", [None, "", '{"sha256": "ab', "[]", "{}", "[" * 100_000])
def test_checkpoint_without_a_whole_record_was_not_finished(tmp_path, content):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, state(), {})
    record = path.with_suffix(".json")
    record.unlink() if content is None else record.write_text(content)
    assert load_record(path) is None


def test_record_without_its_weights_was_not_finished(tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, state(), {})
    path.unlink()
    assert load_record(path) is None


def test_weights_of_another_record_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, state(), {})
    save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=f"{path} is not what was written .* Delete both files"):
        load_record(path)


def test_one_that_is_being_replaced_is_not_finished_and_then_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, state(), {"number": 1})
    # A kill between its two files leaves one that is made again.
    monkeypatch.setattr(checkpoint, "replace_text", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"w": torch.ones(1)}, {})
    assert load_record(path) is None
    monkeypatch.undo()
    save_checkpoint(path, state(), {"number": 1})

    def hashed(path):  # by a process that has read the old record
        monkeypatch.undo()
        save_checkpoint(path, {"w": torch.ones(1)}, {"number": 2})
        return checkpoint.sha256(path)

    monkeypatch.setattr(checkpoint, "remembered_sha256", hashed)
    assert load_record(path)["number"] == 2


def test_who_has_lost_the_lease_leaves_what_the_other_process_has_made(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    made = save_checkpoint(path, state(), {})
    monkeypatch.setattr(checkpoint, "check_leases", mock.Mock(side_effect=LeaseLost))
    with pytest.raises(LeaseLost):
        save_checkpoint(path, {"w": torch.ones(1)}, {})
    assert load_record(path) == made


def test_other_checkpoint_with_a_record_of_its_own(tmp_path):
    """Replacing the weights alone is an error; replacing both is the user's right."""
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(1)}, path)
    path.with_suffix(".json").write_text(json.dumps({"sha256": checkpoint.sha256(path)}))
    assert load_record(path)["sha256"] == checkpoint.sha256(path)


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "a"
    replace_atomically(path, lambda temporary: temporary.write_text("old"))

    def torn(temporary):
        temporary.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_atomically(path, torn)
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and path.read_text() == "old"
    replace_atomically(path, lambda temporary: temporary.write_text("new"))
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and path.read_text() == "new"


def test_training_state_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: True)  # removed by another process since then
    assert load_state(tmp_path / "state") is None
    save_state(tmp_path / "state", {"step": 3, "model": state()})
    found = load_state(tmp_path / "state")
    assert found["step"] == 3 and torch.equal(found["model"]["w"], state()["w"])


def test_room_is_there_and_nothing_is_left_behind(tmp_path):
    check_room(tmp_path / "new" / "folder", 1000)
    assert not list((tmp_path / "new" / "folder").iterdir())


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_file_in_place_of_the_folder(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"cannot write to {tmp_path / folder} .* paths.checkpoints="):
        check_room(tmp_path / folder, 0)


def test_full_disk_is_found_beforehand(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 999 * 10**6, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    check_room(tmp_path, 10**6)
    with pytest.raises(OSError, match=f"{tmp_path} has 1 MB free, 90 MB are needed"):
        check_room(tmp_path, 90 * 10**6)


def test_own_checkpoints_come_from_a_folder(tmp_path):
    source, task = Folder(folder=tmp_path, generation="other"), made_up.tasks.task()
    backbone = made_up.tasks.backbone()
    with pytest.raises(FileNotFoundError, match="tints.safetensors.*tsv-finetune .*task=tints"):
        source.checkpoint(backbone, task, pytest.fail)
    with pytest.raises(FileNotFoundError, match="no checkpoint of tiny on tints"):
        source.settings(backbone, task)

    path = tmp_path / "tints.safetensors"
    save_file({name: tensor.clone() for name, tensor in backbone.pretrained.items()}, path)
    found = source.checkpoint(backbone, task, pytest.fail)
    assert found.path == path and found.scores is None and found.generation == "other"
    assert found.sha256 == checkpoint.sha256(path)
    assert source.needed(backbone, [task]) == 0
    before = source.settings(backbone, task)
    save_file({"w": torch.zeros(1)}, path)
    assert source.settings(backbone, task) != before
