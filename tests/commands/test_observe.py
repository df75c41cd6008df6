"""tsv-observe writes statistics, and tsv-merge merges by them: towers, and language models."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from made_up import adapter_files, tower_files
from made_up.backbones import SMALL as SMALL_CLIP
from made_up.backbones import clip
from made_up.texts import TEXT, gpt2, llama, save
from safetensors.torch import load_file, save_file
from stand_ins.commands import begin_from, checkpoints, small, tsv
from transformers import AutoModelForCausalLM

from tsv_bench import methods
from tsv_bench.checkpoints.image_tower import image_tower
from tsv_bench.files.atomic import TEMPORARY
from tsv_bench.models import load_clip
from tsv_bench.observation import observe_files
from tsv_bench.observation.observe_files import observe_images
from tsv_bench.observation.statistics_file import StatisticsFile
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.task_vectors import TaskVector
from tsv_bench.task_vectors.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("signs", "shapes")
SIGNS = ("task=signs", *small("task", ("signs",)))
SHAPES = ("task=shapes", *small("task", ("shapes",)))


@pytest.fixture(scope="module")
def folder(fine_tuned, tmp_path_factory):
    """Two fine-tuned towers, a.safetensors of signs and b.safetensors of shapes, observed."""
    folder = begin_from(fine_tuned, tmp_path_factory.mktemp("observe"))
    [shapes, signs] = sorted(checkpoints(folder), key=lambda path: path.name)
    [base] = folder.glob("checkpoints/**/pretrained*.safetensors")
    for name, path in {"a": signs, "b": shapes, "base": base}.items():
        shutil.copy(path, folder / f"{name}.safetensors")
    for name, task in {"a": SIGNS, "b": SHAPES}.items():
        kinds = "kinds=[inputs,fisher]"
        done = observe(folder, *task, kinds, f"finetuned={name}.safetensors", f"output={name}")
        assert done.code == 0, done.err
        assert f"{name}.inputs.safetensors, {name}.fisher.safetensors" in done.err
    return folder


def observe(folder, *arguments):
    # Options of the task's own data come in with the task; there is no recipe here.
    given = [a for a in arguments if "finetune." not in a and "epochs" not in a]
    return tsv(folder, "observe", "images=8", *given)


def merge(folder, *arguments):
    given = {
        "pretrained": "base.safetensors",
        "finetuned": "{a: a.safetensors, b: b.safetensors}",
        "inputs": "{a: a.inputs.safetensors, b: b.inputs.safetensors}",
        "method": "regmean",
        "output": "out.safetensors",
        "overwrite": "true",
        "cache.folder": "null",
    } | dict(argument.split("=", 1) for argument in arguments)
    return tsv(folder, "merge", *(f"{k}={v}" for k, v in given.items() if v != "MISSING"))


def served(folder, method, kind, **knobs):
    """What the method serves, called directly."""
    base = load_file(folder / "base.safetensors")
    vectors = {n: TaskVector(base, load_file(folder / f"{n}.safetensors")) for n in "ab"}
    statistics = {n: StatisticsFile(folder / f"{n}.{kind}.safetensors") for n in "ab"}
    vector = method(vectors, **{kind: statistics}, **knobs)["a"]
    return {name: base[name] + vector[name] for name in base}


def test_towers_are_merged_by_what_was_observed(folder):
    done = merge(folder)
    assert done.code == 0, done.err
    written = load_file(folder / "out.safetensors")
    expected = served(folder, methods.regmean, "inputs", off_diagonal=0.95)
    for name in expected:
        torch.testing.assert_close(written[name], expected[name])
    state = open_state_dict(folder / "out.safetensors")
    assert '"split": "train"' in state.metadata["tsv_bench"]  # the statistics are in the record


def test_a_folder_for_the_output_is_made(folder, monkeypatch):
    def write(path, *more):
        beside.extend(os.listdir(path.parent))
        return work(path, *more)

    beside, work = [], observe_files._write
    monkeypatch.setattr(observe_files, "_write", write)
    done = observe(folder, *SIGNS, "finetuned=a.safetensors", "output=deep/er/a")
    assert done.code == 0, done.err
    assert len(beside) == 1 and TEMPORARY.fullmatch(beside[0])  # after a kill the next one removes
    assert [path.name for path in (folder / "deep/er").iterdir()] == ["a.inputs.safetensors"]


def test_what_tsv_bench_gathers_is_what_tsv_observe_writes(folder):
    signs = small("suite.tasks", TASKS)
    done = tsv(folder, "bench", "suite.tasks=[signs,shapes]", "method=regmean", "method.images=8",
               *signs)  # fmt: skip
    assert done.code == 0, done.err
    [kept] = (folder / "data/statistics").rglob("signs-*.inputs.safetensors")
    file, other = StatisticsFile(kept), StatisticsFile(folder / "a.inputs.safetensors")
    assert file.about["checkpoint"] == other.about["checkpoint"]
    assert all(torch.equal(file[name], other[name]) for name in file)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_language_models_are_merged_by_texts(tmp_path, make):
    for seed, name in enumerate(("base", "a", "b")):
        model = make()
        if seed:
            with torch.no_grad():
                generator = torch.Generator().manual_seed(seed)
                for p in model.parameters():
                    p.add_(torch.randn(p.shape, generator=generator), alpha=0.05)
        save(model, tmp_path / name)
    (tmp_path / "text.txt").write_text(TEXT)
    for name in "ab":
        done = tsv(tmp_path, "observe", "texts=text.txt", f"finetuned={name}", f"output=s/{name}",
                   "tokens=10")  # fmt: skip
        assert done.code == 0, done.err
    done = merge(tmp_path, "pretrained=base", "finetuned={a: a, b: b}", "output=out",
                 "inputs={a: s/a.inputs.safetensors, b: s/b.inputs.safetensors}")  # fmt: skip
    assert done.code == 0, done.err
    merged, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    # The rule by hand for one layer: its outputs are the least-squares fit of both models' own.
    layer = {llama: "model.layers.0.mlp.down_proj", gpt2: "transformer.h.0.mlp.c_proj"}[make]
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in "ab"]
    left, right = 0, 0
    for name, model in zip("ab", models, strict=True):
        file = StatisticsFile(tmp_path / f"s/{name}.inputs.safetensors")
        stored = next(n for n in file if n.endswith(".".join(layer.split(".")[2:]) + ".weight")
                      and ".0." in n)  # fmt: skip
        gram = file[stored].double() / file.gathered(stored).count
        gram = 0.95 * gram + 0.05 * gram.diagonal().diag()
        weight = model.get_submodule(layer).weight.double()
        weight = weight.T if make is gpt2 else weight
        left, right = left + weight @ gram, right + gram
    expected = torch.linalg.solve(right, left, left=False)
    expected = expected.T if make is gpt2 else expected
    torch.testing.assert_close(merged.get_submodule(layer).weight.double(), expected,
                               rtol=0, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("naming", ["open_clip", "hugging_face"])
def test_layers_have_the_names_of_the_checkpoint(tmp_path, naming):
    model = clip()
    path = tmp_path / "clip.safetensors"
    save_file(model.state_dict(), path)
    backbone = load_clip(name="s", label="S", architecture=SMALL_CLIP, weights=str(path))
    ours = tmp_path / "tower.safetensors"
    if naming == "hugging_face":
        tower_files.hugging_face(SMALL_CLIP, seed=3).save_pretrained(tmp_path)
        own = open_state_dict(tmp_path / "model.safetensors")
    else:
        own = open_state_dict(tower_files.save(backbone.pretrained, naming, tmp_path, SMALL_CLIP))
    tower = image_tower(own, backbone.pretrained)
    save_file({name: tower[name] for name in tower}, ours)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    head, about = torch.randn(4, 24), {"seed": 0, "checkpoint": "c"}
    found = {}
    for place, state in {"own": own, "ours": open_state_dict(ours)}.items():
        paths = {k: tmp_path / f"{place}.{k}.safetensors" for k in ("inputs", "fisher")}
        observe_images(backbone, state, paths, images, head, about, "sampled", "cpu")
        found[place] = {kind: StatisticsFile(p) for kind, p in paths.items()}
    assert set(found["own"]["fisher"]) <= set(own)
    for kind in ("inputs", "fisher"):
        for name in found["ours"][kind]:
            place = tower.places[name]
            parts = [found["own"][kind][part] for part in place.parts]
            expected = found["ours"][kind][name]
            if kind == "inputs":
                assert all(torch.equal(part, expected) for part in parts)
                axis = found["ours"][kind].gathered(name).axis
                expected_axis = 1 - axis if place.transposed else axis
                assert found["own"][kind].gathered(place.parts[0]).axis == expected_axis
            else:
                whole = (
                    parts[0].T
                    if place.transposed
                    else torch.cat(parts)
                    if parts[0].ndim
                    else parts[0]
                )
                assert torch.equal(whole, expected), name


def broken(folder):
    """Files that are no statistics of a: truncated, and of another number of layers."""
    content = (folder / "a.inputs.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:-4])
    file = load_file(folder / "a.inputs.safetensors")
    save_file(file, folder / "plain.safetensors")
    text = content.replace(b"resblocks.3", b"resblocks.4")
    (folder / "layers.safetensors").write_bytes(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inputs=MISSING"], "method=regmean needs inputs, x^T x of a linear layer's inputs"),
        (["inputs=MISSING"], "tsv-observe backbone=mini task=digits kinds=[inputs] finetuned=a.s"),
        (["inputs=x"], "inputs='x' does not name the tasks' files"),
        (["inputs={a: a.inputs.safetensors}"], "inputs has no file of b. Write one with: tsv-obs"),
        (["inputs={a: a.inputs.safetensors, c: c}"], "inputs has 'c', and there is no such"),
        (["inputs={a: none, b: none}"], "inputs of a: "),
        (
            ["inputs={a: a.fisher.safetensors, b: b.inputs.safetensors}"],
            "inputs of a: a.fisher.safetensors holds fish",
        ),
        (["inputs={a: b.inputs.safetensors, b: b.inputs.safetensors}"], "is of another checkpoint"),
        (["inputs={a: cut.safetensors, b: cut.safetensors}"], "is not a whole safetensors file"),
        (["inputs={a: plain.safetensors, b: a}"], "inputs of b: no statistics at a."),
        (
            ["inputs={a: plain.safetensors, b: plain.safetensors}"],
            "plain.safetensors holds no statistics",
        ),
        (
            ["inputs={a: layers.safetensors, b: b.inputs.safetensors}"],
            "has 4 layers that the checkpoint has not, first 'transformer.resblocks.4",
        ),
        (["method=ties"], "inputs= has no effect on method=ties: it sees weights alone"),
    ],
)
def test_wrong_statistics_are_one_message(folder, arguments, message):
    broken(folder)
    done = merge(folder, *arguments)
    assert done.code == 1 and message in done.err and "Traceback" not in done.err, done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetuned=MISSING"], "finetuned=None is not a path. As in: tsv-observe"),
        (["kinds=[gram]"], "kinds=['gram'] is not a list of some of inputs, means, fisher"),
        (["output=a"], "a.inputs.safetensors is there already"),
        (["output=plain", "overwrite=true"], "holds no statistics"),
        (["images=0"], "images=0 is not a whole number from 1 on"),
        (["images=200"], "the train images of signs are 64 images, and the method is to see 200"),
        (["images=200"], "Set images=64 or less"),
        (["task=[signs,shapes]"], "Each in a job of its own is --multirun task=signs,shapes."),
        (["split=test"], "split='test' is not a split that a method may see"),
        (["classes=all"], "classes='all' is not a way to take"),
        (["backbone=mini", "finetuned=other.safetensors"], "other.safetensors"),
        (["texts=none.txt"], "none.txt"),
        (["finetuned=adapter"], "adapter is a LoRA adapter, which tsv-merge and tsv-analyze read"),
        (["finetuned=adapter", "texts=plain.inputs.safetensors"], "Write it first: tsv-merge"),
    ],
)
def test_mistakes_are_one_message(folder, arguments, message):
    save_file({"weight": torch.ones(2, 2)}, folder / "other.safetensors")
    if not (folder / "adapter").exists():
        adapter_files.write(folder / "apart" / "adapter").rename(folder / "adapter")
    save_file({"weight": torch.ones(2, 2)}, folder / "plain.inputs.safetensors")
    given = {"finetuned": "a.safetensors", "output": "new"}
    given |= dict(argument.split("=", 1) for argument in arguments)
    done = observe(folder, *SIGNS, *(f"{k}={v}" for k, v in given.items() if v != "MISSING"))
    assert done.code == 1 and message in done.err and "Traceback" not in done.err, done.err
    assert not list(folder.glob("new*"))


def test_the_page_of_statistics_names_the_methods_of_each_kind_and_its_commands_are_taken(tmp_path):
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    asking = {kind: [] for kind in KINDS}
    for path in sorted((ROOT / "conf" / "method").glob("*.yaml")):
        for needs in re.findall(r"^needs: \[(.*?)\]", path.read_text(encoding="utf-8"), re.M):
            for kind in set(needs.split(", ")) & set(KINDS):
                asking[kind].append(path.stem)
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\w, ]+) \|$", page, re.M)
    assert {kind: names.split(", ") for kind, names in rows} == asking
    commands = re.findall(r"^    tsv-(observe|merge) (.*)$", page, re.M)
    assert len(commands) == 6
    for name, line in commands:
        done = tsv(tmp_path, name, *shlex.split(line), "--cfg", "job")
        assert done.code == 0, done.err
