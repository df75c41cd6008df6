"""Files made to do harm: one message that names the file, at once and in little memory."""

import json
import os
import zipfile

import pytest
import torch
from made_up.state_dicts import save, save_sharded, state

from tsv_bench.state_dicts import state_dict
from tsv_bench.state_dicts.state_dict import open_state_dict

DEEP = 100_000  # far beyond what Python recurses
TORCH = ["torch", "old torch"]


def pickled(path, *operations):
    """A torch file of a pickle that is written by hand."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + b"".join(operations) + b".")
        file.writestr("a/version", "3")
    return path


@pytest.mark.parametrize("format", TORCH)
def test_a_tensor_larger_than_its_file_is_refused(tmp_path, format):
    path = save({"w": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "a", format)
    with pytest.raises(ValueError, match=f"{path} holds 'w' of shape .*4,000,000.0 MB.*contig"):
        open_state_dict(path)


@pytest.mark.parametrize("format", TORCH)
def test_views_of_one_storage_and_small_expanded_buffers_are_read(tmp_path, format):
    w = torch.randn(4, 6)
    views = {"w": w, "tied": w, "turned": w.mT, "rows": w[1:], "ids": torch.arange(7).expand(3, 7)}
    found = open_state_dict(save(views, tmp_path / "a", format))
    assert all(torch.equal(found[name], tensor) for name, tensor in views.items())


@pytest.mark.parametrize("format", TORCH)
def test_dicts_within_themselves_are_no_trap(tmp_path, format):
    one, none = {"w": torch.ones(2)}, {}
    for content in (one, none):
        content["model"] = content["state_dict"] = content
    assert list(open_state_dict(save(one, tmp_path / "one", format))) == ["w"]
    with pytest.raises(ValueError, match="it holds no tensor"):
        open_state_dict(save(none, tmp_path / "none", format))


def test_dicts_nested_deep_or_shared_often_are_looked_at_once(tmp_path):
    nested = b"}X\x05\0\0\0model" * DEEP + b"}" + b"s" * DEEP
    with pytest.raises(ValueError, match="it holds no tensor"):
        open_state_dict(pickled(tmp_path / "deep", nested))
    content = {"epoch": 1}
    for _ in range(60):  # 3^60 ways through them
        content = dict.fromkeys(("model", "state_dict", "model_state_dict"), content)
    with pytest.raises(ValueError, match="it holds no tensor"):
        open_state_dict(save(content, tmp_path / "wide", "torch"))


def test_a_key_that_is_nested_deep_is_no_trap(tmp_path):
    with pytest.raises(ValueError, match="it holds no tensor"):
        open_state_dict(pickled(tmp_path / "a", b"}", b")", b"\x85" * DEEP, b"K\x01s"))


def test_a_pickle_that_asks_for_memory_is_refused(tmp_path, monkeypatch):
    def no_memory(*args, **kwargs):
        raise MemoryError

    path = save(state(), tmp_path / "a", "old torch")
    monkeypatch.setattr(torch, "load", no_memory)
    with pytest.raises(ValueError, match=f"{path} asks for more memory than there is"):
        open_state_dict(path)


def test_storages_larger_than_their_records_are_refused(tmp_path):
    save({"w": torch.ones(1000)}, tmp_path / "whole", "torch")
    with (
        zipfile.ZipFile(tmp_path / "whole") as whole,
        zipfile.ZipFile(tmp_path / "a", "w") as lying,
    ):
        for record in whole.infolist():
            content = whole.read(record)  # 1000 in two bytes, a million in four
            lying.writestr(record, content.replace(b"M\xe8\x03", b"J\x40\x42\x0f\0"))
    with pytest.raises(ValueError, match="a is not a whole torch file"):
        open_state_dict(tmp_path / "a")


def test_a_file_that_was_compressed_afterwards_is_refused(tmp_path):
    """A mapped file is read as it lies there: its compressed bytes would be taken for weights."""
    save({"w": torch.ones(1000)}, tmp_path / "whole", "torch")
    with (
        zipfile.ZipFile(tmp_path / "whole") as whole,
        zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for record in whole.namelist():
            small.writestr(record, whole.read(record))
    with pytest.raises(ValueError, match="a was compressed after torch.save had written it"):
        open_state_dict(tmp_path / "a")


@pytest.mark.parametrize("format", TORCH)
@pytest.mark.parametrize(
    "name", ["\ud800", "__metadata__", "x" * 10**6], ids=["half", "metadata", "long"]
)
def test_names_that_no_output_can_have_are_refused(tmp_path, name, format):
    path = save({"w": torch.ones(1), name: torch.ones(1)}, tmp_path / "a", format)
    with pytest.raises(ValueError, match="holds a tensor named '") as refused:
        open_state_dict(path)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 1000


def test_long_names_of_safetensors_are_refused(tmp_path):
    path = save({"x" * 10**6: torch.ones(1)}, tmp_path / "a")
    with pytest.raises(ValueError, match="holds a tensor named 'xxx.*, 1000000 characters"):
        open_state_dict(path)


def test_names_with_control_characters_are_kept_and_shown_escaped(tmp_path):
    name = "a\n\x1b[2J\0\u202e"
    path = save({name: torch.ones(1)}, tmp_path / "a")
    assert list(open_state_dict(path)) == [name]
    path = save({name: torch.ones(1).expand(9**9)}, tmp_path / "b", "torch")
    with pytest.raises(ValueError) as refused:
        open_state_dict(path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "[" * DEEP,
        '{"weight_map":' * DEEP,
        '{"weight_map": {"w": 3}}',
        '{"weight_map": {"w": [1]}}',
        '{"weight_map": ' + "9" * DEEP + "}",
    ],
    ids=["deep list", "deep dict", "number", "list", "long number"],
)
def test_odd_json_is_no_index(tmp_path, text):
    save_sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="index.json is not a whole index"):
        open_state_dict(tmp_path)


def test_an_index_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    save_sharded(tmp_path)
    open_state_dict(tmp_path)
    monkeypatch.setattr(state_dict, "MAX_INDEX", 50)
    with pytest.raises(ValueError, match="index.json is not a whole index"):
        open_state_dict(tmp_path)


@pytest.mark.parametrize("shard", ["\0", "\ud800", "a\nb", "\x1b[2J", "x" * 10**6], ids=str.__len__)
def test_odd_names_of_shards_are_shown_escaped_and_short(tmp_path, shard):
    save_sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(ValueError, match="which is no file name in its folder") as refused:
        open_state_dict(tmp_path)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 1000


def test_long_names_in_an_index_are_shown_short(tmp_path):
    save_sharded(tmp_path, **{"x" * 10**6: "model-1.safetensors"})
    with pytest.raises(ValueError, match="names 'xxx.*in model-1.safetensors") as refused:
        open_state_dict(tmp_path)
    assert len(str(refused.value)) < 1000


def test_pipes_and_sockets_are_not_waited_for(tmp_path):
    save(state(), tmp_path / "model.safetensors")
    for name in ("other.safetensors", "config.json"):
        os.mkfifo(tmp_path / name)
    found = open_state_dict(tmp_path)
    assert found.files == [tmp_path / "model.safetensors"] and found.other_files == []
