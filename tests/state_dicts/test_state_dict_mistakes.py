"""Damaged files, other files and pickles with code: the error names them, no code is run."""

import os
import pickle
import zipfile

import pytest
import torch
from made_up.state_dicts import FORMATS, save, save_sharded, state

from tsv_bench.state_dicts import safetensors_file
from tsv_bench.state_dicts.state_dict import open_state_dict


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("format", ["torch", "old torch"])
def test_code_in_a_pickle_is_not_run(tmp_path, format):
    ran = tmp_path / "ran"
    path = save({"w": torch.ones(2), "model": Code(ran)}, tmp_path / "a.pt", format)
    with pytest.raises(ValueError, match="needs code to be run, io.open, which was not executed"):
        open_state_dict(path)
    assert not ran.exists()
    torch.load(path, weights_only=False)["model"].close()  # this would run the code
    assert ran.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_any_pickle_is_not_run(tmp_path, protocol):
    (tmp_path / "a").write_bytes(pickle.dumps(Code(tmp_path / "ran"), protocol=protocol))
    with pytest.raises(ValueError, match="not executed|not a whole torch file"):
        open_state_dict(tmp_path / "a")
    assert not (tmp_path / "ran").exists()


def test_missing_checkpoint_is_named(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for name in ("a", "dangling"):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint at {tmp_path / name}"):
            open_state_dict(tmp_path / name)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, -1])
def test_truncated_file_is_named(tmp_path, format, kept):
    path = save({"w": torch.randn(2000), "b": torch.ones(3)}, tmp_path / "a", format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept > 0 else kept])
    kind = "safetensors" if format == "safetensors" else "torch"
    with pytest.raises(ValueError, match=f"{path} is not a whole {kind} file .*ake it again"):
        open_state_dict(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("format", ["torch", "old torch"])
def test_damaged_pickle_is_named(tmp_path, format):
    path = save(state(), tmp_path / "a", format)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"_rebuild_tensor_v2", b"\x00" * 18))
    with pytest.raises(ValueError, match="is not a whole torch file|needs code"):
        open_state_dict(path)


@pytest.mark.parametrize("kept", [0, 5])
def test_stub_named_safetensors(tmp_path, kept):
    path = save(state(), tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"{path} is not a whole safetensors file"):
        open_state_dict(path)


@pytest.mark.parametrize("format", ["torch", "old torch"])
def test_torch_file_named_safetensors(tmp_path, format):
    path = save(state(), tmp_path / "a", format).rename(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="a.safetensors is no safetensors file, .* to a.pt"):
        open_state_dict(path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "it is empty"),
        (b"some text about weights", "it begins with b'some text ab'"),
        (b'{"abcd":{"json": 1}}', "it begins with"),
        (b"GGUF\x03\0\0\0", "it is a GGUF file"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "it is a Git LFS pointer, .* `git lfs pull`",
        ),
    ],
)
def test_other_files_are_no_checkpoints(tmp_path, content, match):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=f"is not a checkpoint: {match}.*Accepted are a safet"):
        open_state_dict(tmp_path / "a")


@pytest.mark.parametrize("format", ["torch", "old torch"])
@pytest.mark.parametrize("content", [{"epoch": 3}, {}, {"model": {}}, {1: torch.ones(1)}, [1], 3])
def test_torch_files_without_weights(tmp_path, content, format):
    path = save(content, tmp_path / "a", format)
    with pytest.raises(ValueError, match=f"{path} is not a checkpoint: it holds"):
        open_state_dict(path)


def test_zip_files_of_others(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        file.writestr("text", "content")
    with pytest.raises(ValueError, match="is not a checkpoint: it is a zip file that torch.save"):
        open_state_dict(tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        file.writestr("a/data.pkl", "content")
        file.writestr("a/constants.pkl", "content")
    with pytest.raises(ValueError, match="is a TorchScript archive: it needs code to be run"):
        open_state_dict(tmp_path / "a")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
@pytest.mark.parametrize("kind", ["sparse_coo", "quantized", "meta"])
def test_tensors_that_are_not_ordinary_are_named(tmp_path, kind):
    odd = {
        "sparse_coo": lambda: torch.eye(2).to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "meta": lambda: torch.ones(2, device="meta"),
    }
    path = save({"b": torch.ones(1), "w": odd[kind]()}, tmp_path / "a", "torch")
    with pytest.raises(ValueError, match=f"holds 'w' as a {kind} tensor; only ordinary"):
        open_state_dict(path)


@pytest.mark.parametrize("dtype", ["F4", "F3"])
def test_unknown_dtype_is_named(tmp_path, dtype):
    header = b'{"a": {"dtype": "%s", "shape": [2], "data_offsets": [0, 1]}}' % dtype.encode()
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + b"0")
    with pytest.raises(ValueError, match=f"of an unknown dtype.*{dtype}"):
        open_state_dict(tmp_path / "a")


@pytest.mark.parametrize("format", ["safetensors", "torch"])
def test_file_that_changes_while_it_is_read(tmp_path, format):
    found = open_state_dict(save({"w": torch.randn(5000)}, tmp_path / "a", format))
    os.truncate(tmp_path / "a", 10000)
    with pytest.raises(ValueError, match="shrank while 'w' was being|changed while it was being"):
        found["w"]


def test_shard_that_is_missing(tmp_path):
    save_sharded(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    match = f"no checkpoint at {tmp_path}/model-2.safetensors, which model.safetensors.index.json"
    with pytest.raises(FileNotFoundError, match=match):
        open_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"x": "model-2.safetensors"}, "names 'x' in model-2.safetensors, which does not hold it"),
        ({"w": "model-2.safetensors"}, "names 'w' in model-2.safetensors, which does not hold it"),
        ({"x": "../a"}, "names '../a', which is no file name"),
        ({"x": 3}, "is not a whole index"),
    ],
)
def test_index_that_does_not_fit(tmp_path, changes, match):
    save_sharded(tmp_path, **changes)
    with pytest.raises(ValueError, match=f"{tmp_path}/model.safetensors.index.json {match}"):
        open_state_dict(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
def test_index_that_is_none(tmp_path, text):
    save_sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="is not a whole index"):
        open_state_dict(tmp_path)


def test_weights_that_the_index_does_not_name(tmp_path):
    save_sharded(tmp_path)
    save(
        {"w": torch.ones(1), "deep": torch.ones(1), "x": torch.ones(1)},
        tmp_path / "model-1.safetensors",
    )
    with pytest.raises(ValueError, match="model-1.safetensors holds 'x', which .* does not name"):
        open_state_dict(tmp_path)


def test_folders_that_leave_a_choice_or_none(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"{tmp_path} is not a checkpoint: no file in it is named"):
        open_state_dict(tmp_path)
    for name in ("b.pt", "a.bin"):
        save(state(), tmp_path / name, "torch")
    with pytest.raises(ValueError, match="2 files to choose from .*: a.bin, b.pt. Name the one"):
        open_state_dict(tmp_path)


def test_too_many_open_files_are_no_damage(tmp_path, monkeypatch):
    """Nobody is told to delete a checkpoint because another file could not be opened."""
    path = save(state(), tmp_path / "a")

    def no_descriptor(*args, **kwargs):  # what safe_open raises then
        raise RuntimeError(f"unable to open file <{path}> in read-only mode: Too many open files")

    monkeypatch.setattr(safetensors_file, "safe_open", no_descriptor)
    with pytest.raises(OSError, match=f"{path} cannot be mapped: .*Too many open files"):
        open_state_dict(path)
