"""Experts and kernels as matrices: each as if it were a layer of its own."""

from functools import partial

import pytest
import torch
from made_up.merges import made, merge, write_checkpoints
from made_up.state_dicts import save
from made_up.vectors import close, read
from stand_ins.commands import tsv

from tsv_bench import methods
from tsv_bench.merging.as_matrices import AsMatrices
from tsv_bench.merging.scaling.task_weights import Weighted
from tsv_bench.state_dicts.state_dict import open_state_dict

METHODS = {
    "tsv_merge": partial(methods.tsv_merge, rank_fraction=0.5),
    "iso_c": methods.iso_c,
    "knots": partial(methods.knots, density=0.3),
    "svc": methods.svc,
}
SHAPES = {
    "mlp.experts.gate_up_proj": (3, 8, 6),
    "conv.weight": (5, 4, 3, 2),
    "proj": (6, 6),
    "bias": (6,),
    "scale": (),
}


def vectors():
    generator = torch.Generator().manual_seed(0)
    return {
        t: {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in SHAPES.items()}
        for t in "ab"
    }


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_each_is_merged_as_if_it_were_a_layer_of_its_own(method):
    given = vectors()
    found = read(AsMatrices(method, stacked=True, kernels=True)(given))["a"]
    by_hand = {}
    for task, vector in given.items():
        experts = {f"experts.{e}": m for e, m in enumerate(vector["mlp.experts.gate_up_proj"])}
        others = {name: vector[name] for name in ("proj", "bias", "scale")}
        by_hand[task] = {**experts, "conv": vector["conv.weight"].flatten(1), **others}
    expected = read(method(by_hand))["a"]
    stack = torch.stack([expected.pop(f"experts.{e}") for e in range(3)])
    kernel = expected.pop("conv").reshape(SHAPES["conv.weight"])
    expected |= {"mlp.experts.gate_up_proj": stack, "conv.weight": kernel}
    torch.testing.assert_close(found, {name: expected[name] for name in SHAPES}, **close)


def test_one_without_the_other():
    given, method = vectors(), METHODS["tsv_merge"]
    plain = read(method(given))["a"]
    for stacked, kernels in ((True, False), (False, True), (False, False)):
        found = read(AsMatrices(method, stacked, kernels)(given))["a"]
        differs = {name for name in SHAPES if not torch.equal(found[name], plain[name])}
        both = {"mlp.experts.gate_up_proj": stacked, "conv.weight": kernels}
        assert differs == {name for name, changed in both.items() if changed}


def test_patterns_exclude_experts_and_weights_scale_them():
    given = vectors()
    excluding = partial(methods.tsv_merge, exclude=["experts"])
    found = read(AsMatrices(excluding, stacked=True, kernels=False)(given))["a"]
    name = "mlp.experts.gate_up_proj"
    torch.testing.assert_close(found[name], (given["a"][name] + given["b"][name]) / 2, **close)
    weighted = Weighted(AsMatrices(methods.iso_c, True, True), {"a": 2.0, "b": 1.0}, "scale")
    doubled = {"a": {n: 2 * d for n, d in given["a"].items()}, "b": given["b"]}
    expected = AsMatrices(methods.iso_c, True, True)(doubled)
    torch.testing.assert_close(read(weighted(given)), read(expected), **close)


def test_no_tasks_check_knobs_alone():
    assert AsMatrices(methods.tsv_merge, True, True)({}) == {}


def test_files_of_a_mixture_of_experts(tmp_path):
    """Mixtral's layout as transformers stacks it; what is said of it, and the same as apart."""
    name = "model.layers.0.mlp.experts.gate_up_proj"
    base = {name: torch.zeros(4, 8, 6), "norm": torch.ones(6)}
    save(base, tmp_path / "base.safetensors")
    apart = {f"e{i}": torch.zeros(8, 6) for i in range(4)} | {"norm": torch.ones(6)}
    save(apart, tmp_path / "apart.safetensors")
    for seed, task in enumerate("ab"):
        stack = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(seed))
        save(base | {name: stack}, tmp_path / f"{task}.safetensors")
        experts = {f"e{i}": one for i, one in enumerate(stack)}
        save(apart | experts, tmp_path / f"{task}2.safetensors")
    result = merge(tmp_path, "out.safetensors", "stacked=true")
    said = "97.0% of 198 parameters are merged by matrices, 3.0% entry by entry: 3.0% vectors."
    assert said in result.err
    tuned = {"a": "a2.safetensors", "b": "b2.safetensors"}
    [expected] = made(tmp_path, "tsv_merge", "2.safetensors", base="apart.safetensors", tuned=tuned)
    found = open_state_dict(tmp_path / "out.safetensors")
    assert '"stacked": true' in found.metadata["tsv_bench"]
    stack = torch.stack([expected[f"e{i}"] for i in range(4)])
    torch.testing.assert_close(found[name], stack)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=ties", "stacked=true"], "stacked=true has no effect on method=ties, which takes"),
        (["kernels=yes"], "kernels='yes' is neither true nor false"),
        (["method=tsv_compress", "write=compressed", "kernels=true"], "write=compressed has no"),
    ],
)
def test_where_it_cannot_be(tmp_path, arguments, message):
    write_checkpoints(tmp_path)
    paths = ["pretrained=base.safetensors", "finetuned={a: a.safetensors, b: b.safetensors}"]
    result = tsv(tmp_path, "merge", *paths, "output=out.safetensors", *arguments)
    assert result.code == 1 and message in result.err, result.err
