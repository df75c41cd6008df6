"""Checkpoints written piece by piece: readable by safetensors, put in place only when whole."""

import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from stand_ins.disk import Disk

from tsv_bench.state_dicts.safetensors_file import DTYPES
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.state_dicts.writer import MADE_BY, Shards, StateDictWriter


def state():
    return {
        "flag": torch.tensor([True, False, True]),
        "w": torch.randn(5, 3),
        "half": torch.randn(3, 2, 2).half(),
        "step": torch.tensor(7),
        "none": torch.zeros(0, 4),
        "double": torch.randn(2, dtype=torch.float64),
    }


def specs(tensors):
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def single(tensors, name="a.safetensors"):
    return Shards({name: specs(tensors)})


def fill(writer, tensors):
    for name, tensor in tensors.items():
        writer.write(name, 0, tensor)


def bytes_of(tensor):
    return tensor.reshape(-1).view(torch.uint8).tolist()


def same(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor), name


def sharded(other_files=()):
    first, second = dict(list(state().items())[:2]), dict(list(state().items())[2:])
    files = {"m-1.safetensors": specs(first), "m-2.safetensors": specs(second)}
    return Shards(files, "m.safetensors.index.json", tuple(other_files), folder=True)


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_what_is_written_in_pieces_is_read_back(tmp_path, rows):
    path = tmp_path / "new" / "a.safetensors"
    expected = state()
    with StateDictWriter(path, single(expected), {"by": "us"}) as writer:
        for name, tensor in reversed(expected.items()):  # any order
            for start in reversed(range(0, len(tensor) if tensor.ndim else 1, rows)):
                writer.write(name, start, tensor[start : start + rows] if tensor.ndim else tensor)
    same(load_file(path), expected)
    same(open_state_dict(path), expected)
    assert open_state_dict(path).metadata == {"by": "us", "format": "pt"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype(tmp_path, dtype):
    expected = {"a": torch.tensor([[1, 0, 1, 1]]).to(dtype), "scalar": torch.tensor(1).to(dtype)}
    with StateDictWriter(tmp_path / "a", single(expected), {}) as writer:
        fill(writer, expected)
    found = open_state_dict(tmp_path / "a")
    for name, tensor in expected.items():
        assert found[name].dtype == dtype and found[name].shape == tensor.shape
        assert bytes_of(found[name]) == bytes_of(tensor)


def test_order_is_kept_unless_alignment_forbids_it(tmp_path):
    def order(*names):
        tensors, path = {name: state()[name] for name in names}, tmp_path / "-".join(names)
        with StateDictWriter(path, single(tensors), {}) as writer:
            fill(writer, tensors)
        same(load_file(path), tensors)
        with path.open("rb") as file:
            assert int.from_bytes(file.read(8), "little") % 8 == 0
        return list(open_state_dict(path))

    assert order("w", "half", "flag") == ["w", "half", "flag"]
    assert order("half", "step", "w") == ["half", "step", "w"]  # 24 bytes of halves
    assert order("flag", "half", "step", "w") == ["step", "w", "half", "flag"]


def test_pieces_are_cast_and_left_alone(tmp_path):
    weight = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    before = weight.detach().clone()
    layout = Shards({"a": {"w": (torch.bfloat16, (6, 4))}})
    with StateDictWriter(tmp_path / "a", layout, {}) as writer:
        writer.write("w", 0, weight.mT)  # not contiguous
    assert torch.equal(load_file(tmp_path / "a")["w"], before.mT.bfloat16())
    assert torch.equal(weight.detach(), before)


@pytest.mark.parametrize("names", [["w"], ["none"], []])
def test_small_files(tmp_path, names):
    tensors = {name: state()[name] for name in names}
    with StateDictWriter(tmp_path / "a", single(tensors), {}) as writer:
        fill(writer, {name: t for name, t in tensors.items() if t.numel()})
    same(load_file(tmp_path / "a"), tensors)


def test_folder_with_index_and_other_files(tmp_path):
    config = tmp_path / "config.json"
    config.write_text("{}")
    layout = sharded([config])
    expected = state()
    with StateDictWriter(tmp_path / "out", layout, {}) as writer:
        fill(writer, expected)
        assert not (tmp_path / "out").exists()
    found = open_state_dict(tmp_path / "out")
    same(found, expected)
    assert found.index_name == "m.safetensors.index.json"
    assert [path.name for path in found.other_files] == ["config.json"]
    assert {name: set(params) for name, params in found.shards.items()} == {
        name: set(params) for name, params in layout.files.items()
    }
    index = json.loads((tmp_path / "out" / "m.safetensors.index.json").read_text())
    size = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    assert index["metadata"] == {"total_size": size}
    for path in found.files:
        with safe_open(path, framework="pt") as file:
            names = sorted(p.name for p in (tmp_path / "out").iterdir())
            assert sorted(json.loads(file.metadata().pop("tsv_bench.files"))) == names
            assert file.metadata()["format"] == "pt"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "out"]


def written(output, shards=None, tensors=None, **options):
    """Write an output as a merge does."""
    tensors = tensors or state()
    with StateDictWriter(output, shards or sharded(), {MADE_BY: "{}"}, **options) as writer:
        fill(writer, tensors)
    return tensors


@pytest.mark.parametrize("linked", [False, True])
def test_a_merges_files_are_replaced_and_a_users_stay(tmp_path, linked):
    folder, config = tmp_path / "real", tmp_path / "config.json"
    config.write_text("{}")
    folder.mkdir()
    output = tmp_path / "link" if linked else folder
    if linked:
        output.symlink_to(folder)
    six = {f"old-{n}.safetensors": specs({n: t}) for n, t in state().items()}
    written(output, Shards(six, "old.safetensors.index.json", (config,), folder=True))
    (folder / "eval").mkdir()
    for name in ("README.md", "eval/scores.json"):
        (folder / name).write_text("mine")
    before = sorted(p.name for p in tmp_path.iterdir())
    expected = written(output, overwrite=True)
    same(open_state_dict(output), expected)
    names = {"m-1.safetensors", "m-2.safetensors", "m.safetensors.index.json"}
    assert {p.name for p in folder.iterdir()} == names | {"README.md", "eval"}
    assert (folder / "eval" / "scores.json").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_file_of_a_merge_is_replaced(tmp_path):
    written(tmp_path / "a", single(state()))
    expected = written(tmp_path / "a", single(state()), overwrite=True)
    same(load_file(tmp_path / "a"), expected)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("layout", [single(state()), sharded()], ids=["file", "folder"])
def test_what_appears_meanwhile_stays_and_nothing_is_lost(tmp_path, layout, overwrite):
    """Somebody's thesis, while it is computed; the result gets the next free name."""
    output = tmp_path / "out.v1"
    (tmp_path / "out-2.v1").write_text("taken")
    with pytest.raises(FileExistsError, match=r"out.v1 has appeared while.*out-3.v1"):
        with StateDictWriter(output, layout, {}, overwrite=overwrite) as writer:
            fill(writer, expected := state())
            if layout.folder:
                output.mkdir()
            (output / "thesis" if layout.folder else output).write_text("thesis")
    assert (output / "thesis" if layout.folder else output).read_text() == "thesis"
    aside = tmp_path / "out-3.v1"
    same(open_state_dict(aside) if layout.folder else load_file(aside), expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out-2.v1", "out-3.v1", "out.v1"]


def test_without_hard_links_a_file_that_appears_stays_too(tmp_path, monkeypatch):
    def no_links(*paths):
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    written(tmp_path / "a", single(state()))
    with pytest.raises(FileExistsError, match="a-2"):
        written(tmp_path / "a", single(state()))


def test_what_stands_there_is_on_the_disk(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    written(tmp_path / "file", single(state()))
    written(tmp_path / "folder")
    for name in ("file", "folder"):
        disk.assert_durable(tmp_path / name)
    written(tmp_path / "file", single(state()), overwrite=True)
    written(tmp_path / "folder", overwrite=True)
    for path in (tmp_path / "file", *(tmp_path / "folder").iterdir()):
        disk.assert_durable(path)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("layout", [single(state()), sharded()], ids=["file", "folder"])
def test_failure_leaves_what_was_there(tmp_path, layout, existing, error):
    output = tmp_path / "out"
    if existing:
        output.mkdir() if layout.folder else output.write_text("old")
    if existing and layout.folder:
        (output / "old").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error), StateDictWriter(output, layout, {}) as writer:
        writer.write("w", 0, state()["w"])
        raise error
    assert sorted(tmp_path.rglob("*")) == before
    assert not existing or layout.folder or output.read_text() == "old"


@pytest.mark.parametrize("at", ["copyfile", "rename"])
def test_failure_while_the_folder_is_put_together(tmp_path, monkeypatch, at):
    output, config = tmp_path / "out", tmp_path / "config.json"
    written(output)
    (output / "old").write_text("old")
    config.write_text("{}")
    before = sorted(tmp_path.rglob("*"))

    def interrupted(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr({"copyfile": shutil, "rename": os}[at], at, interrupted)
    with pytest.raises(KeyboardInterrupt):
        written(output, sharded([config]), overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("pieces", "match"),
    [
        ([("w", 0, 5)], "'b': only 0 of 1 rows"),
        ([("b", 0, 1), ("w", 0, 2), ("w", 3, 2)], "'w': only 4 of 5 rows"),
        ([("w", 0, 3), ("w", 2, 3)], "'w': rows 2 to 5 are not to be written"),
        ([("b", 0, 1), ("b", 0, 1)], "'b': rows 0 to 1 are not to be written"),
        ([("w", 3, 3)], "'w': rows 3 to 6 are not to be written"),
    ],
)
def test_every_row_is_written_once(tmp_path, pieces, match):
    """Assertions: these are mistakes of the calling code, not of a user."""
    layout = Shards({"a": {"w": (torch.float32, (5, 3)), "b": (torch.float32, ())}})
    with pytest.raises(AssertionError, match=match):
        with StateDictWriter(tmp_path / "a", layout, {}) as writer:
            for name, start, count in pieces:
                writer.write(name, start, torch.ones(()) if name == "b" else torch.ones(count, 3))
    assert not list(tmp_path.iterdir())


def test_wrong_shape_is_caught(tmp_path):
    with pytest.raises(AssertionError, match="'w'"):
        with StateDictWriter(tmp_path / "a", single({"w": torch.ones(5, 3)}), {}) as writer:
            writer.write("w", 0, torch.ones(5, 1))


def test_outputs_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match="file is a file; a folder is to be written there"):
        StateDictWriter(tmp_path / "file", sharded(), {})
    with pytest.raises(ValueError, match="is a folder; a file is to be written there"):
        StateDictWriter(tmp_path, single(state()), {})
    with pytest.raises(ValueError, match="no dtype for 'z', which is torch.complex128"):
        StateDictWriter(tmp_path / "a", single({"z": torch.ones(1, dtype=torch.complex128)}), {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_room_that_is_needed(tmp_path):
    config = tmp_path / "config.json"
    config.write_text("x" * 10**6)
    odd = {"é\n" * 50 + str(n): torch.ones(1) for n in range(500)}  # long in JSON
    files = {f"m-{n}.safetensors": specs({f"{n}{k}": t for k, t in odd.items()}) for n in range(3)}
    layout = Shards(files, "m.safetensors.index.json", (config,), folder=True)
    with StateDictWriter(tmp_path / "out", layout, {"by": "us"}) as writer:
        for params in files.values():
            fill(writer, {name: torch.ones(1) for name in params})
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert written <= layout.num_bytes() <= 1.5 * written + 2**18
