"""tsv-merge with base=: LATA as published on language models that transformers loads."""

import json
import math
import re

import pytest
import torch
from made_up.texts import gpt2, llama, save
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stand_ins.commands import SMALL, tsv
from transformers import AutoModelForCausalLM

from tsv_bench.files import sha256

pytestmark = pytest.mark.usefixtures("without_shape_checks")
NUM_BLOCKS = 6
ALONG, ACROSS = (0, 2, 4), (1, 3, 5)  # blocks that a task moves on along the instruction, or not


def step(model, generator, size):
    return {n: size * torch.randn(p.shape, generator=generator) for n, p in model.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """base, instruct, and two tasks; a moved blocks of `ALONG` as instruction tuning did."""
    folder = tmp_path_factory.mktemp("with_base")
    generator = torch.Generator().manual_seed(0)
    base = llama(layers=NUM_BLOCKS)
    weights = {name: p.detach().clone() for name, p in base.named_parameters()}
    along = step(weights, generator, 0.05)
    instruct = {name: w + along[name] for name, w in weights.items()}
    tuned = {}
    for task in "ab":
        across = step(weights, generator, 0.05)
        tuned[task] = {
            # A little across in all, and in each block another share: no two are equally similar.
            n: w
            + (
                0.5 * along[n] + 0.02 * (1 + block(n)) * across[n]
                if task == "a" and block(n) in ALONG
                else across[n]
            )
            for n, w in instruct.items()
        }
    for name, state in {"base": weights, "instruct": instruct, **tuned}.items():
        base.load_state_dict(state)
        save(base, folder / name)
    return folder


def block(name):
    return int(name.split(".")[2]) if ".layers." in name else None


def merge(folder, *arguments):
    given = {
        "method": "lata",
        "base": "base",
        "pretrained": "instruct",
        "finetuned": "{a: a, b: b}",
        "output": "out",
        "cache.folder": "null",
    } | dict(argument.split("=", 1) for argument in arguments)
    return tsv(folder, "merge", *(f"{k}={v}" for k, v in given.items() if v != "MISSING"))


def state(folder, name):
    return {n: w.double() for n, w in load_file(folder / name / "model.safetensors").items()}


def by_hand(folder):
    """Task -> block -> similarity, by the definition in float64."""
    base, instruct = state(folder, "base"), state(folder, "instruct")

    def flat(weights, number):
        return torch.cat([(weights[n] - base[n]).flatten() for n in base if block(n) == number])

    return {
        task: [
            torch.cosine_similarity(flat(state(folder, task), b), flat(instruct, b), dim=0).item()
            for b in range(NUM_BLOCKS)
        ]
        for task in "ab"
    }


def expected(folder, weights, alpha=1.0):
    """The model, from each task's weights of its blocks."""
    instruct = state(folder, "instruct")
    model = dict(instruct)
    for task, own in weights.items():
        for name, tuned in state(folder, task).items():
            weight = 1 if block(name) is None else own[block(name)]
            model[name] = model[name] + alpha * weight * (tuned - instruct[name])
    return model


def loaded(folder, name):
    """What transformers loads; it names what is missing or not expected."""
    model, info = AutoModelForCausalLM.from_pretrained(folder / name, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return {n: w.double() for n, w in model.state_dict().items()}


def ranks(similarities):
    order = sorted(range(NUM_BLOCKS), key=similarities.__getitem__, reverse=True)
    return [order.index(b) + 1 for b in range(NUM_BLOCKS)]


def table(result):
    """Block -> numbers, as printed."""
    rows = [line.split() for line in result.out.splitlines()]
    return {row[0]: list(map(float, row[1:])) for row in rows if row and row[0].startswith("mod")}


WEIGHTS = {
    "": lambda rank: (rank - 1) / (NUM_BLOCKS - 1),
    "method.with_base.rank_weights=above_zero": lambda rank: rank / NUM_BLOCKS,
    "method.drop=logarithmic": lambda rank: math.log(rank) / math.log(NUM_BLOCKS),
}


@pytest.mark.parametrize("knob", WEIGHTS)
def test_learning_tells_blocks_apart_and_transformers_loads_the_model(folder, knob):
    done = merge(folder, "overwrite=true", *filter(None, [knob]))
    assert done.code == 0, done.err
    similarities = by_hand(folder)
    weights = {t: [WEIGHTS[knob](r) for r in ranks(own)] for t, own in similarities.items()}
    highest_along = max(weights["a"][b] for b in ALONG)
    assert highest_along < min(weights["a"][b] for b in ACROSS)
    found = table(done)
    assert list(found) == [f"model.layers.{b}" for b in range(NUM_BLOCKS)]
    for b, row in enumerate(found.values()):
        shown = [n for task in "ab" for n in (similarities[task][b], weights[task][b])]
        # Weights have three decimals, similarities six; deltas of float32 files are rounded.
        assert row == pytest.approx(shown, abs=5.1e-4)
        assert row[::2] == pytest.approx(shown[::2], abs=6e-7)
    merged = loaded(folder, "out")
    for name, weight in expected(folder, weights).items():
        # Weights are about 0.1, of float32: deltas, their sum and the result are rounded.
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-7)
    assert "3 parameters outside of blocks weigh 1: lm_head.weight, model.embed" in done.err
    assert (
        re.search(r"LATA of 2 tasks -> out \(1 written", done.err) and "validation" not in done.err
    )


def test_forgetting_takes_away_what_is_not_of_the_instruction(folder):
    """A negative alpha; by a threshold blocks as instructed stay as they are."""
    similarities = by_hand(folder)["a"]
    threshold = (min(similarities[b] for b in ALONG) + max(similarities[b] for b in ACROSS)) / 2
    done = merge(folder, "alpha=-0.7", "finetuned={a: a}", "output=without",
                 "method.drop=threshold", f"method.threshold={threshold}")  # fmt: skip
    assert done.code == 0, done.err
    weights = {"a": [float(b in ACROSS) for b in range(NUM_BLOCKS)]}
    merged, before = loaded(folder, "without"), state(folder, "instruct")
    for name, weight in expected(folder, weights, -0.7).items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-7)
        assert torch.equal(merged[name], before[name]) == (block(name) in ALONG)


def test_the_output_says_what_it_was_made_of(folder):
    done = merge(folder, "write=vector", "output=vector.safetensors", "pretrained=instruct",
                 "method.with_base.granularity=tensor")  # fmt: skip
    assert done.code == 0, done.err
    with safe_open(folder / "vector.safetensors", "pt") as file:
        about = json.loads(file.metadata()["tsv_bench"])
    path = folder / "base" / "model.safetensors"
    assert about["inputs"]["base"] == {"model.safetensors": sha256(path)}
    assert about["method"] == "lata" and about["knobs"] == {
        "drop": "linear", "threshold": 0.95, "granularity": "tensor", "rank_weights": "from_zero",
    }  # fmt: skip
    assert len(table(done)) == 9 * NUM_BLOCKS


def test_an_unchanged_task_has_weights_and_changes_nothing(folder):
    done = merge(folder, "finetuned={a: a, none: instruct}", "output=one")
    assert done.code == 0, done.err
    assert "none equals the pretrained checkpoint: it changes nothing" in done.err
    assert all(row[2:] == [1, 0.5] for row in table(done).values())
    weights = {"a": [(r - 1) / (NUM_BLOCKS - 1) for r in ranks(by_hand(folder)["a"])]}
    merged = loaded(folder, "one")
    for name, weight in expected(folder, weights).items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-7)


def test_a_figure_is_drawn_if_asked_for(folder):
    done = merge(folder, "output=drawn", "figure=figures/weights.png")
    assert done.code == 0, done.err
    assert "figure of 2 tasks' blocks -> figures/weights.png" in done.err
    path = folder / "figures" / "weights.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    again = merge(folder, "output=drawn2", "figure=figures/weights.png")
    assert again.code == 1 and not (folder / "drawn2").exists()
    assert "figure figures/weights.png is there already. Name another, or replace it" in again.err


def test_blocks_of_gpt2_are_found(tmp_path):
    """Its names have no model in front in some files, its weights lie inputs x outputs."""
    generator = torch.Generator().manual_seed(0)
    model = gpt2()
    for name in ("base", "instruct", "a"):
        save(model, tmp_path / name)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=generator), alpha=0.05)
    done = merge(tmp_path, "finetuned={a: a}")
    assert done.code == 0, done.err
    assert re.search(r"^transformer\.h\.0 .*\ntransformer\.h\.1 ", done.out, re.M)
    loaded(tmp_path, "out")


def test_without_base_it_is_the_adaptation(folder):
    done = merge(folder, "base=MISSING", "output=adapted")
    assert done.code == 0, done.err
    assert "LATA (adapted) of 2 tasks" in done.err and not done.out
    assert merge(folder, "base=null", "output=other").code == 0
    same = [load_file(folder / n / "model.safetensors") for n in ("adapted", "other")]
    assert all(torch.equal(w, same[1][n]) for n, w in same[0].items())


def broken(folder, name):
    """A base with other parameters, shapes, numbers or values than the instruct model has."""
    weights = load_file(folder / "base" / "model.safetensors")
    weight = weights.pop("lm_head.weight")
    changed = {
        "fewer": {},
        "wider": {"lm_head.weight": torch.cat([weight, weight])},
        "quantized": {"lm_head.weight": weight.to(torch.int8)},
        "spoiled": {"lm_head.weight": torch.full_like(weight, torch.nan)},
    }[name]
    save_file(weights | changed, folder / f"{name}.safetensors")
    return f"base={name}.safetensors"


MISTAKES = [
    (["base=fewer"], "base fewer.safetensors and pretrained instruct have different parameters: 1 "
     "appear in only one of them, first 'lm_head.weight' in pretrained. base= is what the instru"),
    (["base=wider"], "have other shapes: 'lm_head.weight' is (18, 12) in base and (9, 12) in pret"),
    (["base=quantized"], "'lm_head.weight' is torch.int8 in base and torch.float32 in pretrained."),
    (["base=spoiled"], "base: spoiled.safetensors holds NaN or infinity in 'lm_head.weight'"),
    (["base=none"], "base: no checkpoint at none"),
    (["base=3"], "base=3 is not a path"),
    (["base=instruct"], "base instruct equals pretrained instruct: there is no instruction vector"),
    (["method=ties"], "base= has no effect on method=ties: it needs no model from before"),
    (["method=tsv_merge"], "base= has no effect on method=tsv_merge"),
    (["finetuned={base: a}"], "the task's name 'base' is taken by the checkpoint that base= names"),
    (["output=base", "overwrite=true"], "output base is the checkpoint of base: name another"),
    (["method.with_base.granularity=layer"], "granularity='layer' is not what has a weight of its "
     "own: ('block', 'tensor')"),
    (["method.with_base.rank_weights=one"], "rank_weights='one' is not a form of weights by rank"),
    (["method.granularity=tensor"], "unknown key 'granularity' in method"),
    (["method.drop=cubic"], "drop='cubic' is not a way to weight blocks"),
    (["alpha=nan"], "alpha=nan is not a number"),
    (["write=compressed"], "write=compressed stores the low-rank factors"),
    (["figure=weights.pdf"], "figure='weights.pdf' is not a path that ends in .png or .svg"),
    (["figure=3"], "figure=3 is not a path that ends in .png or .svg"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_one_message(folder, arguments, message):
    if arguments[0] in ("base=fewer", "base=wider", "base=quantized", "base=spoiled"):
        arguments = [broken(folder, arguments[0].removeprefix("base="))]
    done = merge(folder, "output=new", *arguments)
    assert done.code == 1 and message in done.err and "Traceback" not in done.err, done.err
    assert not (folder / "new").exists()


VOID = {
    "base=null figure=weights.png": "figure=weights.png has no effect: it counts only where base i",
    "base=null method.with_base.granularity=tensor": "method.with_base.granularity=tensor has no ef"
    "fect: it counts only where base is not null.",
    "method.drop=threshold method.threshold=0.2 method.with_base.rank_weights=above_zero": "method."
    "with_base.rank_weights=above_zero has no effect: it counts only where method.drop is not thr",
}


@pytest.mark.parametrize("arguments", VOID)
def test_what_has_no_effect_is_said(folder, arguments):
    done = merge(folder, "overwrite=true", "output=void", *arguments.split())
    assert done.code == 0 and VOID[arguments] in done.err, done.err
    assert not (folder / "weights.png").exists()


def test_tsv_bench_takes_no_base(tmp_path):
    done = tsv(tmp_path, "bench", "method=lata", "base=b", *SMALL)
    assert done.code == 1 and "tsv-bench takes no base=: the backbones of its suites" in done.err
    void = ["method.with_base.granularity=tensor", "device=tpu"]
    said = tsv(tmp_path, "bench", "method=lata", *void, *SMALL).err
    assert f"{void[0]} has no effect: it counts only in tsv-merge with base=" in said
