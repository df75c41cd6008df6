"""tsv-merge in folders: shards and their index, one output each, and Ctrl-C in the middle."""

import json
import shlex
import signal

import pytest
import torch
from made_up.merges import (
    TASKS,
    files,
    made,
    merge,
    merge_again,
    merge_to_file,
    pretrained,
    same,
    write_checkpoints,
)
from made_up.state_dicts import save, save_sharded
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stand_ins.commands import interrupt, start, tsv
from stand_ins.processes import Started

from tsv_bench.files import claim
from tsv_bench.methods.matrixwise import tsv as tsv_method
from tsv_bench.state_dicts.state_dict import open_state_dict

BESIDE = {"config.json": '{"hidden_size": 12}', "tokenizer.json": "{}", "merges.txt": "a b\n"}


@pytest.fixture
def folder(tmp_path):
    write_checkpoints(tmp_path)
    for kind in ("safetensors", "bin"):
        save_sharded(tmp_path / kind, kind, content=pretrained())
        for name, text in BESIDE.items():
            (tmp_path / kind / name).write_text(text)
    return tmp_path


@pytest.fixture
def single(folder):
    """The merge of a pretrained checkpoint in one file."""
    return made(folder, "tsv_merge", "single.safetensors")[0]


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_folder_is_laid_out_like_the_pretrained_one(folder, single, kind):
    merge(folder, "out", base=kind)
    out = folder / "out"
    shards = ["model-1.safetensors", "model-2.safetensors"]
    index = "model.safetensors.index.json"
    assert {p.name for p in out.iterdir()} == {*BESIDE, *shards, index, "README.md"}
    assert {name: (out / name).read_text() for name in BESIDE} == BESIDE
    parts = [load_file(out / shard) for shard in shards]
    same(parts[0] | parts[1], single)
    same(open_state_dict(out), single)
    found = json.loads((out / index).read_text())
    assert found["weight_map"] == {n: shards[n not in parts[0]] for n in single}
    assert len(parts[0]) == 2
    assert found["metadata"]["total_size"] == sum(tensor.nbytes for tensor in single.values())
    for shard in shards:
        with safe_open(out / shard, "pt") as file:
            about = json.loads(file.metadata()["tsv_bench"])
            assert file.metadata()["format"] == "pt"  # transformers looks for it
        kinds = {name.rpartition(".")[2] for name in about["inputs"]["pretrained"]}
        assert len(about["inputs"]["pretrained"]) == 2 and kinds == {kind}


def test_a_folder_may_be_merged_into_one_file(folder, single):
    same(made(folder, "tsv_merge", "one.safetensors", base="bin")[0], single)


def test_a_folder_with_one_file_gives_such_a_folder(folder, single):
    (folder / "base").mkdir()
    save(pretrained(), folder / "base" / "pytorch_model.bin", "torch")
    (folder / "base" / "config.json").write_text("{}")
    same(made(folder, "tsv_merge", "out", base="base")[0], single)
    names = {p.name for p in (folder / "out").iterdir()}
    assert names == {"model.safetensors", "config.json"}


def test_a_sharded_vector_leaves_integers_out(folder):
    [vector] = made(folder, "tsv_merge", "vector", base="safetensors", write="vector")
    assert set(vector) == set(pretrained()) - {"steps", "position_ids"}


@pytest.mark.parametrize("method", ["individual", "tsv_compress"])
def test_each_task_has_a_folder_like_the_pretrained_one(folder, method):
    merge(folder, "out", f"method={method}", base="safetensors")
    expected = made(folder, method, "files")
    assert sorted(p.name for p in (folder / "out").iterdir()) == [*TASKS]
    for task, model in zip(TASKS, expected, strict=True):
        assert set(BESIDE) < {p.name for p in (folder / "out" / task).iterdir()}
        same(open_state_dict(folder / "out" / task), model)
        assert not torch.equal(model["visual.proj"], pretrained()["visual.proj"])


@pytest.fixture
def stopped(monkeypatch):
    """Ctrl-C while visual.proj, the only square matrix, is computed."""
    merge_triplets = tsv_method.merge_triplets

    def until_square(u, s, vh, polar):
        if u.shape[1] == vh.shape[2] == 12:
            raise KeyboardInterrupt
        return merge_triplets(u, s, vh, polar)

    monkeypatch.setattr(tsv_method, "merge_triplets", until_square)


@pytest.mark.parametrize("output", ["out", "single.safetensors", "new/out.safetensors"])
def test_an_interrupted_merge_leaves_what_was_there(folder, single, output, request):
    made(folder, "tsv_merge", "out", base="safetensors")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    request.getfixturevalue("stopped")
    tuned = ", ".join(f"{task}: {path}" for task, path in files().items())
    arguments = ["pretrained=safetensors", f"finetuned={{{tuned}}}", f"output={output}"]
    arguments += ["overwrite=true", "cache.folder=null", "alpha=0.5"]
    result = tsv(folder, "merge", *arguments)
    assert result.code == 130 and "Traceback" not in result.err
    assert "merging: 0/" in result.err
    line = result.err.strip().splitlines()[-1]
    assert "tsv-merge: interrupted" in line
    assert shlex.split(line.partition("go on with: ")[2])[1:] == arguments
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_and_leaves_nothing(tmp_path, number):
    """In a process of its own, in the tenth of a hundred layers."""
    base = {f"layers.{i}.weight": torch.randn(40, 30) for i in range(100)}
    save(base, tmp_path / "base.safetensors")
    for task in TASKS:
        state = {name: weight + 0.01 * torch.randn(40, 30) for name, weight in base.items()}
        save(state, tmp_path / f"{task}.safetensors")
    save_file({"was": torch.ones(3)}, tmp_path / "out.safetensors", {"tsv_bench": "{}"})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with start(
        tmp_path, "pretrained=base.safetensors", "output=out.safetensors", "overwrite=true",
        f"finetuned={{a: {files()['a']}, b: {files()['b']}}}", "threads=1", "cache.folder=null",
        command="merge", hold=(tsv_method.__name__, "merge_triplets", 10),
    ) as process:  # fmt: skip
        interrupt(process, "merging: 0/100 [", number)  # later counts may be skipped
    assert process.code == 128 + number and "100/100" not in process.err
    how = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert "Traceback" not in process.err and f"tsv-merge: {how}. What was" in process.err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_of_merges_to_one_output_one_writes_it_and_a_kill_leaves_nothing(
    folder, caplog, monkeypatch
):
    monkeypatch.setattr(claim, "SECONDS", 0)
    before = {p.name for p in folder.iterdir()}
    hold = (tsv_method.__name__, "merge_triplets", 1)
    with Started(folder, merge_to_file, hold=hold) as process:
        process.wait_until_held()
        with pytest.raises(ValueError, match="another process is writing .*out.safetensors now"):
            made(folder, "tsv_merge", "out.safetensors", overwrite=True)
        made(folder, "tsv_merge", "other.safetensors")
        process.send(signal.SIGKILL)
        process.wait()
    assert {p.name for p in folder.iterdir()} > before | {"other.safetensors"}, "what was killed"
    made(folder, "tsv_merge", "out.safetensors")
    assert {p.name for p in folder.iterdir()} == before | {"other.safetensors", "out.safetensors"}
    assert "a process that was killed left it half written" in caplog.text


def test_what_appears_during_a_merge_is_kept_and_so_is_the_merge(folder, single, monkeypatch):
    """A folder with a thesis in it was deleted, once."""
    merge_triplets = tsv_method.merge_triplets

    def meanwhile(*arguments, **settings):
        (folder / "out").mkdir(exist_ok=True)
        (folder / "out" / "thesis.tex").write_text("thesis")
        return merge_triplets(*arguments, **settings)

    monkeypatch.setattr(tsv_method, "merge_triplets", meanwhile)
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"out has appeared .* is in .*out-\d"):
            made(folder, "tsv_merge", "out", base="safetensors", overwrite=overwrite)
        (folder / "out" / "thesis.tex").unlink()
        (folder / "out").rmdir()
    for name in ("out-2", "out-3"):
        same(open_state_dict(folder / name), single)


def test_a_merge_that_was_killed_in_replacing_a_folder_is_taken_back(folder):
    before = made(folder, "tsv_merge", "out", base="safetensors")[0]
    (folder / "out" / "README.md").write_text("mine")
    with Started(folder, merge_again, hold=("os", "rename", 4)) as process:
        process.wait_until_held()
        process.send(signal.SIGKILL)
        process.wait()
    assert len(list((folder / "out").iterdir())) < 7
    [after] = made(folder, "tsv_merge", "out", base="safetensors", alpha=0.5, overwrite=True)
    assert not torch.equal(before["visual.proj"], after["visual.proj"])
    assert len(list((folder / "out").iterdir())) == 7
    assert (folder / "out" / "README.md").read_text() == "mine"
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("listed", ["[" * 100_000, "3", "{"])
def test_an_output_whose_metadata_are_damaged_is_not_replaced(folder, listed):
    settings = {"base": "safetensors", "output": "out"}
    made(folder, "tsv_merge", **settings)
    shard = folder / "out" / "model-1.safetensors"
    save_file(load_file(shard), shard, {"tsv_bench": "{}", "tsv_bench.files": listed})
    before = shard.read_bytes()
    with pytest.raises(ValueError, match="model-1.safetensors has damaged metadata, which do not"):
        made(folder, "tsv_merge", overwrite=True, **settings)
    assert shard.read_bytes() == before


@pytest.mark.parametrize("names", [("a.bin", "a.pt"), ("model-1.bin", "pytorch_model-1.bin")])
def test_shards_that_would_have_one_name_are_refused(folder, names):
    """One of them would be lost."""
    base = folder / "bin"
    parts = [dict(list(pretrained().items())[i::2]) for i in (0, 1)]
    for name, part in zip(names, parts, strict=True):
        save(part, base / name, "torch")
    index = {param: name for name, part in zip(names, parts, strict=True) for param in part}
    (base / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(ValueError, match=f"{names[0]!r} and {names[1]!r} in .* would both be writ"):
        made(folder, "tsv_merge", "out", base="bin")
    assert not (folder / "out").exists()
