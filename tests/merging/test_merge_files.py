"""tsv-merge: the numbers that it writes, from every format, and the metadata."""

import json
import re
from functools import partial
from importlib.metadata import version

import pytest
import torch
from golden.compare import GOLDEN, NEARLY_CUT, differences
from made_up.merges import (
    TASKS,
    files,
    finetuned,
    made,
    merge,
    pretrained,
    same,
    write_checkpoints,
)
from made_up.pixel_bench import PixelBench
from made_up.state_dicts import save, save_sharded
from safetensors import safe_open
from safetensors.torch import load_file

from tsv_bench import methods, provenance
from tsv_bench.files import sha256
from tsv_bench.merging import merge_files
from tsv_bench.methods.forms import Adapted, Routed
from tsv_bench.state_dicts import integrity
from tsv_bench.task_vectors import lazy

METHODS = {
    "weight_average": {},
    "task_arithmetic": {},
    "ties": {"density": 0.3},
    "tsv_merge": {},
    "tsv_compress": {},
}
ONE = [method for method in METHODS if method != "tsv_compress"]  # served to all tasks
# Deltas are about 0.1; sums of a few of them are rounded in different orders: 1e-7 was seen.
ROUNDED = {"rtol": 0, "atol": 1e-6}


@pytest.fixture
def folder(tmp_path):
    write_checkpoints(tmp_path)
    return tmp_path


def merged(folder, method="tsv_merge", output="out", **settings):
    """Merge by the function; return the tensors of the first output."""
    output += ".safetensors" if method in ONE else ""
    return made(folder, method, output, knobs=METHODS[method], **settings)[0]


def metadata(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["tsv_bench"])


GOLDENS = {
    "average": ("weight_average", {}),
    "task_arithmetic": ("task_arithmetic", {}),
    "ties_k20": ("ties", {"density": 0.2}),
    "ties_k20_sum": ("ties", {"density": 0.2, "merge": "sum"}),
    "ties_k100": ("ties", {"density": 1.0}),
    "tsv_m": ("tsv_merge", {"polar": "svd"}),
    "tsv_m_lossless": ("tsv_merge", {"rank_fraction": 1.0}),
    "tsv_c": ("tsv_compress", {}),
}


def is_golden(found, golden, nearly_cut=""):
    apart = differences(found, golden)
    assert apart.pop(nearly_cut, 0) < 5e-5
    assert {name: d for name, d in apart.items() if d > 1e-5} == {}


@pytest.mark.parametrize("golden", GOLDENS)
def test_a_vector_file_is_that_of_the_papers_code(tmp_path, golden):
    method, knobs = GOLDENS[golden]
    of_tasks = [f"{golden}_task{t}" for t in range(3)] if method == "tsv_compress" else [golden]
    found = made(
        tmp_path, method, "out" if len(of_tasks) > 1 else "out.safetensors", knobs=knobs,
        base=GOLDEN / "pretrained.safetensors", write="vector",
        tuned={f"task{t}": GOLDEN / f"task{t}.safetensors" for t in range(3)},
    )  # fmt: skip
    assert len(found) == len(of_tasks)
    for vector, name in list(zip(found, of_tasks, strict=True))[:2]:  # there are two goldens
        is_golden(vector, name, NEARLY_CUT if golden == "tsv_m" else "")


def test_the_commands_vector_file_is_that_of_the_papers_code(tmp_path):
    arguments = ["method=tsv_merge", "method.polar=svd", "write=vector"]
    tuned = {f"task{t}": GOLDEN / f"task{t}.safetensors" for t in range(3)}
    base = GOLDEN / "pretrained.safetensors"
    merge(tmp_path, "out.safetensors", *arguments, base=base, tuned=tuned)
    is_golden(load_file(tmp_path / "out.safetensors"), "tsv_m", NEARLY_CUT)


def test_a_model_is_pretrained_plus_alpha_times_the_vector(folder):
    base, vector = pretrained(), merged(folder, output="vector", write="vector", alpha=0.7)
    model = merged(folder, output="model", alpha=0.7)
    assert set(model) == set(base) == set(vector) | {"steps", "position_ids"}
    for name, delta in vector.items():
        exact = base[name].double() + 0.7 * delta.double()
        # The product is rounded, then the sum: 2^-24 of each, and both are below 4.
        torch.testing.assert_close(model[name].double(), exact, rtol=0, atol=8 * 2.0**-24)


def test_integer_buffers_are_the_pretrained_ones(folder):
    for method in ("tsv_merge", "tsv_compress"):
        model = merged(folder, method)
        for name in ("steps", "position_ids"):
            same({name: model[name]}, {name: pretrained()[name]})


def test_formats_of_the_inputs_do_not_matter(tmp_path):
    states = write_checkpoints(tmp_path, "abcd")
    save(states["a"], tmp_path / "a.pt", "torch")
    save({"epoch": 3, "state_dict": states["b"]}, tmp_path / "b.pth", "old torch")
    save_sharded(tmp_path / "c", content=states["c"])
    save_sharded(tmp_path / "d", "bin", content=states["d"])
    mixed = {"a": "a.pt", "b": "b.pth", "c": "c", "d": "d"}
    expected = merged(tmp_path, tuned=files("abcd"))
    same(merged(tmp_path, output="mixed", tuned=mixed), expected)
    save(pretrained(), tmp_path / "base.pt", "torch")
    merge(tmp_path, "command.safetensors", tuned=mixed, base="base.pt")
    same(load_file(tmp_path / "command.safetensors"), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("write", ["model", "vector"])
def test_half_precision_is_merged_in_float32_and_rounded_once(tmp_path, dtype, write):
    half, single = tmp_path / "half", tmp_path / "single"
    single.mkdir()
    for name, state in {**write_checkpoints(half, dtype=dtype), "base": pretrained(dtype)}.items():
        wide = {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
        save(wide, single / f"{name}.safetensors")
    found, exact = (merged(folder, write=write, alpha=0.3) for folder in (half, single))
    same(found, {n: t.to(dtype) if t.is_floating_point() else t for n, t in exact.items()})


def test_parameters_have_the_pretrained_types(folder):
    """Here a fine-tuned checkpoint is in half precision and one pretrained parameter in float64."""
    state = {n: t.double() if n == "visual.proj" else t for n, t in pretrained().items()}
    save(state, folder / "base.safetensors")
    tuned = {n: t.half() if t.is_floating_point() else t for n, t in finetuned(0).items()}
    save(tuned, folder / "a.safetensors")
    model = merged(folder)
    assert {n: (t.dtype, t.shape) for n, t in model.items()} == {
        n: (t.dtype, t.shape) for n, t in state.items()
    }


def test_metadata_say_how_the_file_was_made(folder):
    save_sharded(folder / "c", content=finetuned(2))
    arguments = ("method=ties", "method.density=0.5", "alpha=0.4")
    merge(folder, "out.safetensors", *arguments, tuned=files() | {"c": "c"})
    shards = sorted((folder / "c").glob("*.safetensors"))
    inputs = {"pretrained": [folder / "base.safetensors"], "c": shards}
    inputs |= {task: [folder / f"{task}.safetensors"] for task in TASKS}
    expected = {
        "method": "ties",
        "knobs": {"density": 0.5, "merge": "mean"},
        "write": "model",
        "alpha": 0.4,
        "inputs": {task: {p.name: sha256(p) for p in paths} for task, paths in inputs.items()},
        "version": version("tsv_bench"),
        "commit": provenance.commit(),
    }
    assert metadata(folder / "out.safetensors") == expected
    merged(folder, "tsv_compress", write="vector")
    about = metadata(folder / "out" / "a.safetensors")
    assert "alpha" not in about and (about["task"], about["method"]) == ("a", "tsv_compress")


def test_individual_models_are_the_finetuned_ones(folder):
    merge(folder, "out", "method=individual")
    assert sorted(p.name for p in (folder / "out").iterdir()) == [*files().values()]
    for seed, task in enumerate(TASKS):
        model = load_file(folder / "out" / f"{task}.safetensors")
        for name, tensor in finetuned(seed).items():
            if tensor.is_floating_point():
                # The difference is rounded to 2^-24 of itself, the sum, below 4, to 2^-23.
                torch.testing.assert_close(model[name], tensor, rtol=0, atol=2.0**-22)


def test_zero_shot_models_are_the_pretrained_one(folder):
    [model] = made(folder, "zero_shot", "model.safetensors")
    [vector] = made(folder, "zero_shot", "vector.safetensors", write="vector")
    same(model, pretrained())
    assert len(vector) == 8 and not any(tensor.any() for tensor in vector.values())


def test_the_function_does_what_the_command_does(folder):
    """The three lines at the top of `merging`."""
    merge(folder, "command.safetensors", "method.rank_fraction=0.25", "alpha=0.8")
    serve = partial(methods.tsv_merge, rank_fraction=0.25)
    inputs = {task: folder / path for task, path in files().items()}
    merge_files.merge(
        serve, folder / "base.safetensors", inputs, folder / "own.safetensors", alpha=0.8
    )
    one, other = (folder / name for name in ("command.safetensors", "own.safetensors"))
    same(load_file(other), load_file(one))
    assert metadata(other)["knobs"] == {"rank_fraction": 0.25}  # those given; the command knows all
    assert metadata(other) | {"knobs": 0} == metadata(one) | {"knobs": 0}


@pytest.mark.parametrize("method", METHODS)
def test_the_same_merge_again_gives_the_same_bytes(folder, method):
    for output in ("first", "second"):
        merged(folder, method, output)
    path = "{}.safetensors" if method in ONE else "{}/b.safetensors"
    first, second = ((folder / path.format(name)).read_bytes() for name in ("first", "second"))
    assert first == second


@pytest.mark.parametrize("method", ONE)
def test_the_order_of_the_tasks_does_not_matter(tmp_path, method):
    write_checkpoints(tmp_path, "abc")
    there, back = (
        merged(tmp_path, method, order, tuned=files(order), write="vector")
        for order in ("abc", "cba")
    )
    for name in there:
        torch.testing.assert_close(there[name], back[name], **ROUNDED)


@pytest.mark.parametrize("method", METHODS)
def test_one_task_alone_is_that_task(folder, method, monkeypatch):
    monkeypatch.setitem(METHODS, "ties", {"density": 1.0})
    vector = merged(folder, method, tuned=files("a"), write="vector")
    for name, found in vector.items():
        torch.testing.assert_close(found, finetuned(0)[name] - pretrained()[name], **ROUNDED)


@pytest.mark.parametrize("method", METHODS)
def test_layers_in_blocks_of_rows_are_the_same_layers(folder, method, monkeypatch):
    whole = merged(folder, method, "whole")
    monkeypatch.setattr(lazy, "BLOCK", 8)
    monkeypatch.setattr(integrity, "BLOCK", 8)
    same(merged(folder, method, "blocks"), whole)


def test_the_closing_line_says_where_how_large_how_long_and_how_much_memory(folder):
    rest = r"\(%d written, 0\.0 MB\) in \d+\.\d s, peak memory \d\.\d\d GB$"
    said = merge(folder, "new/out.safetensors").err.splitlines()[-1]
    assert re.search(r"^TSV-M of 2 tasks -> new/out.safetensors " + rest % 1, said)
    said = merge(folder, "out", "method=individual").err.splitlines()[-1]
    assert re.search(r"^Individual of 2 tasks -> out " + rest % 2, said)


@pytest.mark.parametrize(("write", "layers"), [("model", 10), ("vector", 8)])
def test_bars_count_files_then_layers(folder, write, layers, monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK", 8)  # layers come in several blocks
    result = merge(folder, "out.safetensors", f"write={write}")
    assert result.out == "" and "checking: 3/3 [" in result.err
    assert f"merging: 0/{layers} [" in result.err
    assert f"merging: {layers}/{layers} [" in result.err
    assert "layer/s" in result.err


def test_slow_first_passes_have_a_bar(folder):
    said = merge(folder, "o.safetensors", "method=ties").err
    assert re.search(r"^thresholds: (\d+)/\1 \[", said, re.MULTILINE)


def test_progress_false_shows_none(folder):
    said = merge(folder, "o.safetensors", "method=ties", "progress=false").err
    assert "TIES of 2 tasks" in said and not re.search(r"\d/\d", said)


def test_adapters_of_features_are_refused_as_there_is_no_file_of_them(tmp_path):
    write_checkpoints(tmp_path)
    paths = {task: tmp_path / f"{task}.safetensors" for task in TASKS}
    serve = partial(methods.surgery, bench=PixelBench({}, TASKS))
    with pytest.raises(ValueError, match="serves each task an adapter of features beside one"):
        merge_files.merge(serve, tmp_path / "base.safetensors", paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("form", "what"),
    [(Adapted, "each task an adapter of features"), (Routed, "experts and a router")],
)
def test_what_has_no_place_in_files_of_weights_is_named(form, what, tmp_path):
    with pytest.raises(ValueError, match=f"serves {what} beside one merged vector, and there are"):
        merge_files.make_writer(form, None, tmp_path / "out", "model", "float32", 1.0, False)
