"""Files are hashed ahead while a command imports, and that is used."""

import os
import threading

import pytest
import torch
from made_up.merges import TASKS, files, write_checkpoints
from made_up.state_dicts import save

from tsv_bench.files import ahead, content
from tsv_bench.state_dicts import integrity
from tsv_bench.state_dicts.state_dict import open_state_dict


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    monkeypatch.setattr(ahead, "_begun", {})
    monkeypatch.setattr(integrity, "_checked", {})
    monkeypatch.setattr(ahead, "num_cores", lambda: 2)


def hash_ahead(paths, monkeypatch, pieces):
    """Hash so many pieces of the files ahead, however the threads take turns."""
    stopped, done = threading.Event(), 0

    def is_set():
        nonlocal done
        done += 1
        return done > pieces

    monkeypatch.setattr(stopped, "is_set", is_set)
    ahead._hash_all(paths, stopped)


@pytest.mark.parametrize("piece", [7, 64, 1000])
@pytest.mark.parametrize("pieces", [1, 3, 8])
def test_a_hash_that_was_begun_ahead_is_the_files(piece, pieces, tmp_path, monkeypatch):
    """By both readings: before a merge and during it, with integers between that nobody reads."""
    tensors = {f"layer{i}": torch.randn(6, 4) for i in range(9)} | {"a": torch.arange(20)}
    path = save(tensors, tmp_path / "a.safetensors")
    monkeypatch.setattr(ahead, "PIECE", piece)
    hash_ahead([path], monkeypatch, pieces)
    assert ahead.begun_sha256(path, content.stamp(path))[1] == min(
        pieces * piece, path.stat().st_size
    )

    state = open_state_dict(path)
    assert integrity.checked_hashes(state) == {path.name: content.sha256(path)}
    integrity._checked.clear()
    reading = integrity.HashedReading({"a": state})
    for name in tensors:
        if name != "a":
            state.rows(name, 3, 6), state.rows(name, 0, 3)
    assert reading.finish() == {"a": {path.name: content.sha256(path)}}


def test_integers_beyond_a_piece_are_hashed_when_their_turn_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(integrity, "MOST_BYTES", 64)
    path = save({"a": torch.arange(100), "b": torch.ones(3)}, tmp_path / "a.safetensors")
    reading = integrity.HashedReading({"a": open_state_dict(path)})
    [own] = reading._hashes.values()
    assert own._hashed.position == path.stat().st_size - 12  # all but b
    assert reading.finish() == {"a": {path.name: content.sha256(path)}}


def test_a_file_that_changed_since_is_hashed_anew(tmp_path, monkeypatch):
    path = save({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    hash_ahead([path], monkeypatch, 9)
    save({"a": torch.zeros(3)}, path)
    os.utime(path, ns=(1, 1))
    assert integrity.checked_hashes(open_state_dict(path)) == {path.name: content.sha256(path)}


def test_the_block_ends_the_thread_and_bad_files_are_passed_over(tmp_path):
    write_checkpoints(tmp_path)
    os.mkfifo(tmp_path / "pipe.safetensors")
    good = [tmp_path / name for name in files().values()]
    before = threading.active_count()
    with ahead.hashed_ahead([tmp_path, tmp_path / "none", tmp_path / "pipe.safetensors", *good]):
        for _ in range(1000):
            if len(ahead._begun) == len(TASKS):
                break
            threading.Event().wait(0.01)
    assert threading.active_count() == before
    for path in good:
        digest, num_bytes = ahead.begun_sha256(path, content.stamp(path))
        assert digest.hexdigest() == content.sha256(path) and num_bytes == path.stat().st_size


def test_one_core_is_left_to_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "num_cores", lambda: 1)
    path = save({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    with ahead.hashed_ahead([path]):
        pass
    assert not ahead._begun
