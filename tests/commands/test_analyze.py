"""tsv-analyze on tiny checkpoints: what it writes, what it reads twice, what it refuses."""

import contextlib
import json
import math
import shutil
from functools import partial

import pytest
import torch
from made_up.merges import files, finetuned, made, pretrained, write_checkpoints
from made_up.state_dicts import save
from stand_ins.commands import blank, tsv

from tsv_bench.analysis import analyze
from tsv_bench.analysis import analyze_files as analyzing
from tsv_bench.analysis.measures import Settings, measure, spectra
from tsv_bench.files import sha256
from tsv_bench.methods.matrixwise import decomposition
from tsv_bench.report.plots import style
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.task_vectors.task_vector import TaskVector

TASKS = ("a", "b", "c")
MATRICES = ["blocks.0.c_proj.weight", "blocks.0.in_proj_weight", "visual.proj"]
FIGURES = ("interference", "energy", "cosines", "effective-rank")


@pytest.fixture
def folder(tmp_path):
    write_checkpoints(tmp_path, TASKS)
    return tmp_path


def analyzed(folder, output="out", tuned=None, **settings):
    """By the function, which takes a tenth of the command's time."""
    own = {k: settings.pop(k) for k in list(settings) if k in Settings.__dataclass_fields__}
    with contextlib.chdir(folder):
        tuned = tuned or files(TASKS)
        settings = {"figures": False, "progress": False} | settings
        return analyze("base.safetensors", tuned, output, Settings(**own), **settings)


def command(folder, *arguments):
    given = {
        "pretrained": "base.safetensors",
        "finetuned": "{a: a.safetensors, b: b.safetensors, c: c.safetensors}",
        "output": "out",
        "cache.folder": "null",
    } | dict(argument.split("=", 1) for argument in arguments)
    return tsv(folder, "analyze", *(f"{k}={v}" for k, v in given.items() if v != "MISSING"))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_command_writes_measures_provenance_and_figures_and_says_so(folder):
    result = command(folder, "rank_fraction=0.25", "layers=[visual.*,*proj*]")
    assert result.code == 0, result.err
    said = result.out + result.err
    records = json.loads((folder / "out/analysis.json").read_text())
    assert sorted(contents(folder / "out")) == sorted(
        ["analysis.json", "figures.md", *(f"{f}.{end}" for f in FIGURES for end in ("svg", "png"))]
    )
    assert "3 tasks, 3 matrices -> out/analysis.json and 8 figures beside it, in " in said
    assert [line.split()[0] for line in result.out.splitlines()[:4]] == [
        "block", "blocks.0", "visual.proj", "all"
    ]  # fmt: skip

    about = records["about"]
    assert about["settings"] == {
        "rank_fraction": 0.25, "svd": "gram", "polar": "eigen", "exclude": None,
        "split_qkv": False, "layers": ["visual.*", "*proj*"], "device": "cpu",
    }  # fmt: skip
    assert about["inputs"] == {
        name: {f"{file}.safetensors": sha256(folder / f"{file}.safetensors")}
        for name, file in {"pretrained": "base", "a": "a", "b": "b", "c": "c"}.items()
    }
    assert {"commit", "versions", "machine"} <= set(about)
    states = {task: finetuned(seed) for seed, task in enumerate(TASKS)}
    vectors = {task: TaskVector(pretrained(), state) for task, state in states.items()}
    measured = {layer.name: layer for layer in measure(vectors, Settings(rank_fraction=0.25))}
    for layer in records["layers"]:
        expected = measured[layer["name"]]
        close(layer["norm"], expected.products.diagonal().sqrt())
        for found, matrix in zip(layer["matrices"], expected.matrices, strict=True):
            assert found["rank"] == matrix.rank == 3
            close(found["interference"]["raw"], matrix.raw)
            close(found["interference"]["pairs"], matrix.pairs)
            close(found["subspace_cosine"]["left"], matrix.left_cosines)
            close(found["subspace_cosine"]["right"], matrix.right_cosines)
            close(found["effective_rank"], matrix.effective_rank)
            close(found["energy"], matrix.energy)
    assert [layer["name"] for layer in records["layers"] if layer["matrices"]] == MATRICES


def close(found, expected):
    """Six significant digits are written; their last is half a unit off at most."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    found = torch.tensor(found, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=5.1e-6, atol=1e-12)


def test_summaries_are_means_and_the_whole_is_of_all_layers(folder):
    records = analyzed(folder).records
    matrices = [matrix for layer in records["layers"] for matrix in layer["matrices"]]
    own = [m for x in records["layers"] if x["stack"] == "blocks" for m in x["matrices"]]
    blocks = {row["block"]: row for row in records["blocks"]}
    kinds = {row["kind"]: row for row in records["kinds"]}
    assert list(blocks) == ["blocks.0", "visual.proj"]
    assert list(kinds) == ["c_proj", "in_proj", "visual.proj"]
    for summary, members in ((records["overall"], matrices), (blocks["blocks.0"], own)):
        assert summary["num_matrices"] == len(members)
        raw = [matrix["interference"]["raw"] for matrix in members]
        assert summary["interference"]["raw"] == pytest.approx(sum(raw) / len(raw), rel=1e-5)
        pairs = [
            matrix["subspace_cosine"][side][i][j]
            for matrix in members for side in ("left", "right")
            for i in range(3) for j in range(3) if i != j
        ]  # fmt: skip
        assert summary["subspace_cosine"] == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    base = pretrained()
    names = [name for name, tensor in base.items() if tensor.is_floating_point()]
    states = [finetuned(seed) for seed in range(3)]
    flat = [torch.cat([(x[n] - base[n]).double().flatten() for n in names]) for x in states]
    close(records["task_vectors"]["cosine"], cosine(torch.stack(flat)))
    assert records["unchanged"] == ["frozen"]


def cosine(rows):
    unit = rows / rows.norm(dim=1, keepdim=True)
    return unit @ unit.mT


def test_same_files_give_the_same_bytes(folder):
    for output in ("one", "two"):
        analyzed(folder, output, layers="visual.proj", figures=True)
    assert contents(folder / "one") == contents(folder / "two")


@pytest.fixture
def calls(monkeypatch):
    """Decompositions since the last look, by function."""
    counted = {"truncated_svd": 0, "singular_values": 0}

    def counting(module, name):
        original = getattr(module, name)

        def call(*args):
            counted[name] += 1
            return original(*args)

        monkeypatch.setattr(module, name, call)

    counting(decomposition, "truncated_svd")
    counting(spectra, "singular_values")

    def since():
        found = dict(counted)
        counted.update(dict.fromkeys(counted, 0))
        return found

    return since


@pytest.mark.parametrize("knobs", [{}, {"split_qkv": True}])
def test_nothing_is_decomposed_twice(folder, calls, knobs):
    factors = partial(FactorCache, folder / "factors", 10**9)
    tuned = files(TASKS)
    made(folder, "tsv_merge", "m.safetensors", tuned=tuned, knobs=knobs, factors=factors())
    calls()
    first = analyzed(folder, "one", factors=factors(), **knobs)
    assert calls() == {"truncated_svd": 0, "singular_values": 9}
    analyzed(folder, "two", factors=factors(), **knobs)
    assert calls() == {"truncated_svd": 0, "singular_values": 0}
    alone = analyzed(folder, "three", **knobs)
    assert calls() == {"truncated_svd": 9, "singular_values": 9}
    one, two, three = ((folder / x / "analysis.json").read_bytes() for x in ("one", "two", "three"))
    assert one == two == three
    assert first.records == alone.records


def test_compressed_checkpoints_are_of_the_rank_they_hold(folder):
    made(folder, "tsv_compress", "small", tuned=files(TASKS), write="compressed")
    tuned = {task: f"small/{task}.safetensors" for task in TASKS}
    found = analyzed(folder, tuned=tuned).records
    for layer in found["layers"]:
        for matrix in layer["matrices"]:
            assert matrix["rank"] == 4
            assert matrix["energy_kept"] == pytest.approx([1, 1, 1])
            assert max(matrix["effective_rank"]) < 4.001
    whole = {x["name"]: x for x in analyzed(folder, "whole").records["layers"]}
    for layer in found["layers"]:
        for one, other in zip(layer["matrices"], whole[layer["name"]]["matrices"], strict=True):
            raw = other["interference"]["raw"]
            assert one["interference"]["raw"] == pytest.approx(raw, rel=1e-4)


def test_a_task_that_changed_nothing_is_null_and_named(folder, caplog):
    save(pretrained(), folder / "b.safetensors")
    records = analyzed(folder, layers="*proj", figures=True).records
    assert "b equals the pretrained checkpoint" in caplog.text
    assert records["task_vectors"]["cosine"][1] == [None, None, None]
    assert all(m["effective_rank"][1] is None for x in records["layers"] for m in x["matrices"])
    assert not math.isnan(records["overall"]["subspace_cosine"])


@pytest.mark.parametrize(("tasks", "layers"), [("a", "visual.proj"), ("ab", "*c_proj*")])
def test_one_task_and_one_matrix_are_drawn_or_it_is_said_why_not(folder, caplog, tasks, layers):
    caplog.set_level("INFO")
    found = analyzed(folder, tuned=files(tasks), layers=layers, figures=True)
    assert found.records["overall"]["num_matrices"] == 1
    written = {path.stem for path in found.figures}
    if len(tasks) == 2:
        assert written == set(FIGURES) and "No figure" not in caplog.text
    else:
        assert written == {"energy", "effective-rank"}
        assert "No figure 'interference': interference is between tasks, and" in caplog.text
        assert "No figure 'cosines'" in (folder / "out/figures.md").read_text()


def test_an_analysis_is_replaced_on_demand_only_with_its_figures(folder, monkeypatch):
    monkeypatch.setattr(style, "_write", blank)
    analyzed(folder, layers="visual.proj", figures=True)
    before = contents(folder / "out")
    with pytest.raises(ValueError, match="analysis.json is there already. Name another folder, or"):
        analyzed(folder)
    assert contents(folder / "out") == before
    one = {"a": "a.safetensors"}
    analyzed(folder, tuned=one, layers="visual.proj", figures=True, overwrite=True)
    assert "interference.svg" not in contents(folder / "out")
    analyzed(folder, overwrite=True)
    assert list(contents(folder / "out")) == ["analysis.json"]


OF_THE_COMMAND = {
    "rank_fraction=1.5": "rank_fraction=1.5 is not in (0, 1]",
    "layrs=proj": "unknown key 'layrs'; did you mean 'layers'?",
    "layers=*atn*": "layers='*atn*' fits none of the 8 layers. Their names are like 'blocks.0",
    "layers=[3]": "layers=[3] is no list of patterns",
    "split_qkv=1": "split_qkv=1 is neither true nor false",
    "figures=some": "figures='some' is neither true nor false",
    "pretrained=MISSING": "pretrained= is missing. As in: tsv-analyze pretrained=base.safetensors",
    "finetuned={a:null}": "finetuned={'a': None} does not name the tasks' checkpoints",
    "output=3": "output=3 is not a path",
    "output=a.safetensors": "output=a.safetensors is a file. Name a folder",
}


@pytest.mark.parametrize("mistake", OF_THE_COMMAND)
def test_wrong_arguments(mistake, folder, no_work):
    before = contents(folder)
    result = command(folder, mistake)
    assert result.code == 1 and "Traceback" not in result.err and result.out == ""
    assert f"tsv-analyze: error: {OF_THE_COMMAND[mistake]}" in result.err
    assert contents(folder) == before and not (folder / "out").exists()


@pytest.fixture
def no_work(monkeypatch):
    for name in ("make_records", "save_analysis"):
        monkeypatch.setattr(analyzing, name, lambda *args: pytest.fail("it went to work"))
    monkeypatch.setattr(spectra, "singular_values", lambda *args: pytest.fail("it went to work"))


def test_wrong_files(folder, no_work):
    save(pretrained() | {"more": torch.ones(2)}, folder / "more.safetensors")
    spoiled = finetuned(0)
    spoiled["visual.proj"][0, 0] = math.nan
    save(spoiled, folder / "nan.safetensors")
    for tuned, message in (
        ({"b": "more.safetensors"}, "b: cannot subtract checkpoints with different parameters"),
        ({"b": "nan.safetensors"}, "b: nan.safetensors holds NaN or infinity in 'visual.proj'"),
        ({"b": "base.safetensors"}, "every fine-tuned checkpoint equals the pretrained one"),
        ({"b": "none.safetensors"}, "b: "),
        ({"a/b": "a.safetensors"}, "the task's name is 'a/b', which becomes a part of file"),
    ):
        with pytest.raises((ValueError, OSError)) as refused:
            analyzed(folder, tuned=tuned)
        assert str(refused.value).startswith(message)
    with pytest.raises(ValueError, match="no task changed any of the matrices among the 1 layers"):
        analyzed(folder, layers="frozen")
    assert not (folder / "out").exists()


def test_room_for_the_output_is_checked_first(folder, no_work, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="has 1 MB free, 20 MB are needed"):
        analyzed(folder)


def test_half_precision_is_measured_as_what_it_holds(folder):
    write_checkpoints(folder, TASKS, torch.bfloat16)
    states = {task: finetuned(seed, torch.bfloat16) for seed, task in enumerate(TASKS)}
    base = pretrained(torch.bfloat16)
    for layer in analyzed(folder).records["layers"]:
        deltas = [(s[layer["name"]].float() - base[layer["name"]].float()) for s in states.values()]
        close(layer["norm"], torch.tensor([delta.double().norm() for delta in deltas]))
