"""Work that a killed Run has done is found again by the same Run, and by no other."""

import shutil
from unittest import mock

import pytest
import torch

from tsv_bench.state_dicts.steps import unfinished as module
from tsv_bench.state_dicts.steps.unfinished import Unfinished


@pytest.fixture
def unfinished(tmp_path):
    return Unfinished(tmp_path / "m-1.unfinished", ["m", {"digits": "1"}])


def test_what_was_kept_is_found_again(unfinished):
    assert unfinished.kept("block 0") is None
    x = torch.arange(6.0).reshape(2, 3)
    unfinished.keep("block 0", {"x": x.mT.requires_grad_(True), "step": torch.tensor(7)})
    again = Unfinished(unfinished.folder, ["m", {"digits": "1"}]).kept("block 0")
    assert torch.equal(again["x"], x.mT) and again["step"].item() == 7
    unfinished.keep("block 0", {"x": x + 1})
    assert torch.equal(unfinished.kept("block 0")["x"], x + 1)
    unfinished.keep("empty", {})
    assert dict(unfinished.kept("empty")) == {}
    unfinished.remove()
    unfinished.remove()
    assert not unfinished.folder.exists() and unfinished.kept("block 0") is None


def test_what_was_made_of_other_checkpoints_is_not_used(unfinished):
    unfinished.keep("a", {"x": torch.ones(2)})
    assert Unfinished(unfinished.folder, ["m", {"digits": "2"}]).kept("a") is None


def test_a_damaged_file_is_made_again(unfinished, caplog):
    unfinished.keep("a", {"x": torch.ones(2)})
    unfinished.path("a").write_bytes(unfinished.path("a").read_bytes()[:-3])
    assert unfinished.kept("a") is None and "It is made again." in caplog.text


def test_a_disk_that_takes_nothing_ends_no_work(unfinished, monkeypatch, caplog):
    def full(path, write):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tsv_bench.state_dicts.steps.unfinished.replace_atomically", full)
    unfinished.keep("a", {"x": torch.ones(2)})
    assert "a break here would lose a: " in caplog.text and unfinished.kept("a") is None


def test_another_process_that_finished_first_has_removed_it_all(unfinished, monkeypatch, caplog):
    def removed(*arguments, **settings):
        shutil.rmtree(unfinished.folder)
        return save_file(*arguments, **settings)

    save_file = module.save_file
    monkeypatch.setattr(module, "save_file", removed)
    unfinished.keep("a", {"x": torch.ones(2)})
    monkeypatch.undo()
    unfinished.keep("a", {"x": torch.ones(2)})
    monkeypatch.setattr(module, "open_state_dict", mock.Mock(side_effect=FileNotFoundError))
    assert unfinished.kept("a") is None and not caplog.records


def test_a_name_is_one_of_a_file(unfinished):
    with pytest.raises(ValueError, match="the name of what is kept"):
        unfinished.keep("../a", {})
