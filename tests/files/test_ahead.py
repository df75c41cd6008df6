"""Files are hashed ahead, by other processes, while a command imports, and that is used."""

import os

import pytest
import torch
from made_up.state_dicts import save

from tsv_bench.files import ahead, content
from tsv_bench.files.ahead import Hasher, begin_hashing, hashed_ahead
from tsv_bench.state_dicts import integrity
from tsv_bench.state_dicts.state_dict import open_state_dict


@pytest.fixture(autouse=True)
def hashers(monkeypatch):
    hashers = {}
    monkeypatch.setattr(ahead, "_hashers", hashers)
    monkeypatch.setattr(ahead, "_at_work", [])
    monkeypatch.setattr(integrity, "_checked", {})
    yield hashers
    for hasher in hashers.values():
        while hasher._read():
            pass


@pytest.fixture
def path(tmp_path):
    tensors = {f"layer{i}": torch.randn(6, 4) for i in range(9)} | {"a": torch.arange(20)}
    return save(tensors, tmp_path / "a.safetensors")


def test_each_file_is_hashed_and_bad_ones_are_passed_over(path, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    hasher = Hasher([tmp_path, tmp_path / "pipe", tmp_path / "none", path, tmp_path / "empty"])
    for each in (path, tmp_path / "empty"):
        assert hasher.sha256(each, content.stamp(each)) == content.sha256(each)
    for each in (tmp_path, tmp_path / "pipe"):
        assert hasher.sha256(each, content.stamp(each)) is None
    assert hasher.sha256(tmp_path / "none", content.stamp(path)) is None
    assert hasher.begun()[3:] == [path, tmp_path / "empty"]
    assert hasher._process.returncode == 0


def test_paths_that_cannot_be_are_left_to_who_opens_them(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "torch_is_there", lambda: False)
    ahead.begin_hashing([tmp_path / (300 * "a" + ahead.SUFFIX)])
    assert not ahead._at_work


def test_what_was_begun_is_finished_and_no_other_file_is_begun(path, tmp_path):
    long, other = tmp_path / "long", tmp_path / "other"
    long.write_bytes(b"")
    os.truncate(long, 2**26)  # takes a thirtieth of a second
    other.touch()
    hasher = Hasher([long, other])
    hasher._read()  # long is begun
    assert hasher.begun() == [long]
    assert hasher.sha256(long, content.stamp(long)) == content.sha256(long)
    assert hasher.sha256(other, content.stamp(other)) is None  # which waits for the end


def test_a_process_ends_with_the_one_that_asked(tmp_path):
    endless = tmp_path / "endless"
    endless.touch()
    os.truncate(endless, 2**40)
    hasher = Hasher([endless])
    hasher._process.stdin.close()
    assert hasher._process.wait() == 0
    hasher._process.stdout.close()


@pytest.mark.parametrize("reads", ["before", "during"])
def test_a_hash_from_ahead_is_the_files(reads, path, hashers, monkeypatch):
    """By both readings: before a merge and during it."""
    expected = {path.name: content.sha256(path)}
    hashers[path.resolve()] = Hasher([path.resolve()])
    state = open_state_dict(path)
    monkeypatch.setattr(integrity, "remembered_sha256", None)
    if reads == "before":
        assert integrity.checked_hashes(state) == expected
    else:
        reading = integrity.HashedReading({"a": state})
        assert not reading._hashes and reading.finish() == {"a": expected}


def test_a_file_that_changed_since_is_hashed_anew(path, hashers):
    hasher = hashers[path.resolve()] = Hasher([path.resolve()])
    assert hasher.sha256(path.resolve(), content.stamp(path))
    save({"a": torch.zeros(3)}, path)
    os.utime(path, ns=(1, 1))
    assert integrity.checked_hashes(open_state_dict(path)) == {path.name: content.sha256(path)}


@pytest.mark.parametrize(
    ("num_cores", "torch_is_there", "shares"),
    [
        (1, False, []),
        (2, True, []),
        (2, False, ["abc"]),
        (3, False, ["ac", "b"]),
        (9, False, [*"abc"]),
    ],
)
def test_cores_that_are_free_share_the_files(
    num_cores, torch_is_there, shares, tmp_path, monkeypatch
):
    asked = []

    class Asked:
        def __init__(self, paths):
            self.paths = paths
            asked.append("".join(path.stem for path in paths))

        def begun(self):
            return []

    monkeypatch.setattr(ahead, "num_cores", lambda: num_cores)
    monkeypatch.setattr(ahead, "torch_is_there", lambda: torch_is_there)
    monkeypatch.setattr(ahead, "Hasher", Asked)
    for name in "abc":
        save({"a": torch.ones(3)}, tmp_path / f"{name}.safetensors")
    b, c = tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    begin_hashing([tmp_path, tmp_path / "none", c])
    with hashed_ahead([b, c]):
        assert len(ahead._at_work) == len(shares)
    assert asked == shares and not ahead._at_work
