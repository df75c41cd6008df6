"""Hashes are of the values that are read, and those that files of earlier versions hold."""

import os
from functools import partial

import pytest
import torch
from made_up.merges import made, pretrained, write_checkpoints
from made_up.state_dicts import FORMATS, save, save_sharded

from tsv_bench import methods
from tsv_bench.files.content import sha256
from tsv_bench.merging import merge_files
from tsv_bench.models.clip import fingerprint
from tsv_bench.state_dicts import torch_file
from tsv_bench.state_dicts.integrity import checked_hashes, hash_weights
from tsv_bench.state_dicts.low_rank import weights_hash
from tsv_bench.state_dicts.state_dict import open_state_dict

# The two ways to write a shape, (2, 3) and [2, 3].
TUPLES = "de8f9c3334dc0ea6787199c51d688e0363225ae13e31c57b419eb62fce380204"
LISTS = "58f533ed3bc94e1864e7fbadbf084f090fee819c9e287fc978754f1d0f6be9c6"


def test_hashes_are_those_of_files_that_were_written_before():
    state = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(1.5, dtype=torch.bfloat16)}
    assert weights_hash(state) == hash_weights(state, tuple) == TUPLES
    assert fingerprint(state) == hash_weights(state, list) == LISTS
    turned = {"b": torch.arange(6.0).view(3, 2).mT.contiguous(), "a": state["a"]}
    assert hash_weights(turned, tuple) != TUPLES
    views = {"b": state["b"].mT.contiguous().mT, "a": state["a"]}  # other strides
    assert hash_weights(views, tuple) == TUPLES


OTHER = {"w": torch.arange(4000.0)}


def old(path):
    """Give a file a time that no later write to it has, however coarse the system's clock is."""
    os.utime(path, ns=(1, 1))
    return path


def write_in_place(path, content):
    """Another content of the same size, in the same file, as training scripts do."""
    assert len(content) == path.stat().st_size
    with path.open("r+b") as file:
        file.write(content)


@pytest.fixture(params=FORMATS)
def files(tmp_path, request):
    """A file of zeros, and another of the same size."""
    path = old(save({"w": torch.zeros(4000)}, tmp_path / "a", request.param))
    # Under the same name: torch.save writes it into the file.
    return path, save(OTHER, (tmp_path / "b").mkdir() or tmp_path / "b" / "a", request.param)


def test_a_file_that_is_written_to_after_it_was_hashed_is_noticed(files):
    path, other = files
    digest = sha256(path)
    found = open_state_dict(path)
    assert checked_hashes(found) == {"a": digest}
    write_in_place(path, other.read_bytes())
    try:
        assert torch.equal(found["w"], torch.zeros(4000))  # held in memory
    except ValueError as error:
        assert f"{path} changed while it was being read. Start again" in str(error)


def test_a_file_that_is_written_to_before_it_is_hashed_is_noticed(files):
    path, other = files
    found = open_state_dict(path)
    write_in_place(path, other.read_bytes())
    with pytest.raises(ValueError, match=f"{path} changed while it was being read"):
        checked_hashes(found)


def test_a_file_that_is_replaced_keeps_its_hash_or_is_noticed(files):
    path, other = files
    digest = sha256(path)
    found = open_state_dict(path)
    os.replace(other, path)
    try:
        assert checked_hashes(found) == {"a": digest}
        assert torch.equal(found["w"], torch.zeros(4000))
    except ValueError as error:
        assert f"{path} changed while it was being read" in str(error)


@pytest.mark.parametrize("format", ["torch", "old torch"])
def test_a_file_that_is_written_to_while_it_is_loaded_is_noticed(tmp_path, format, monkeypatch):
    path, load = old(save({"w": torch.zeros(9)}, tmp_path / "a", format)), torch_file._load

    def loaded_meanwhile(*args):
        write_in_place(path, path.read_bytes())
        return load(*args)

    monkeypatch.setattr(torch_file, "_load", loaded_meanwhile)
    with pytest.raises(ValueError, match="changed while it was being read"):
        open_state_dict(path)


@pytest.mark.parametrize(
    "written",
    [
        "base/model-2.safetensors",
        "a.safetensors",
        "low_rank/a.safetensors",
        "masks/a.safetensors",
        "masks/shared.safetensors",
    ],
)
def test_no_merge_mixes_what_is_written_to_meanwhile(tmp_path, written):
    """Between the check, which hashes, and the merge, which reads again."""
    write_checkpoints(tmp_path)
    save_sharded(tmp_path / "base", content=pretrained())
    made(tmp_path, "tsv_compress", "low_rank", base="base", write="compressed")
    masks = {"method": "tall_mask_ta", "knobs": {"mask_lambda": 0.4}, "write": "compressed"}
    made(tmp_path, output="masks", base="base", **masks)
    folder = "" if written.startswith("base") else written.removesuffix(written.split("/")[-1])
    tuned = {task: tmp_path / folder / f"{task}.safetensors" for task in "ab"}
    path = old(tmp_path / written)

    def serve(vectors):
        if vectors and "visual.proj" in next(iter(vectors.values())):  # not on trial
            write_in_place(path, path.read_bytes())
        return methods.task_arithmetic(vectors)

    merge = partial(merge_files.merge, serve, tmp_path / "base", tuned, progress=False)
    with pytest.raises(ValueError, match=f"{path} changed while it was being read"):
        merge(tmp_path / "out")
    assert not (tmp_path / "out").exists()
