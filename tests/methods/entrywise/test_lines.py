"""Theorems of LiNeS, in float64, and its definition typed again."""

import re

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.task_vectors import lazy

TIES = {"base": "ties", "base_knobs": {"density": 0.3}}


def of_blocks(num_tasks=3, num_blocks=4):
    """Task vectors of an image tower, a smaller text tower, and layers outside of blocks."""
    names = [f"visual.transformer.resblocks.{i}.mlp.c_fc.weight" for i in range(num_blocks)]
    names += [f"visual.transformer.resblocks.{i}.ln_1.bias" for i in range(num_blocks)]
    names += [f"transformer.resblocks.{i}.ln_1.bias" for i in range(2)]
    names += ["visual.proj", "visual.conv1.weight", "logit_scale"]
    shapes = {"weight": (5, 3), "bias": (4,), "proj": (3, 3), "logit_scale": ()}
    return {
        f"task{t}": {name: randn(*shapes[name.rpartition(".")[2]]) for name in names}
        for t in range(num_tasks)
    }


def by_definition(vectors, merged, beta):
    """From the paper's formulas, with the number of the block read from the name."""
    total = {n: sum(v[n] for v in vectors.values()) for n in merged}
    lengths = [sum(float(d.abs().sum()) for d in vector.values()) for vector in (total, merged)]
    alpha = lengths[0] / lengths[1] / len(vectors)
    scaled = {}
    for name, delta in merged.items():
        stack, _, rest = name.partition("resblocks.")
        num_blocks = 4 if stack.startswith("visual") else 2
        block = int(re.match(r"\d+", rest)[0]) if rest else 0
        scaled[name] = delta * (alpha + beta * block / (num_blocks - 1))
    return scaled


@pytest.mark.parametrize("beta", [0, 0.4, 1.5])
@pytest.mark.parametrize("knobs", [{}, TIES], ids=["task_arithmetic", "ties"])
def test_lines_is_its_definition(knobs, beta):
    vectors = of_blocks()
    base = getattr(methods, knobs.get("base", "task_arithmetic"))
    merged = read(base(vectors, **knobs.get("base_knobs", {})))["task0"]
    served = read(methods.lines(vectors, beta=beta, **knobs))["task0"]
    torch.testing.assert_close(served, by_definition(vectors, merged, beta), **close)


def test_without_beta_a_merge_gets_the_length_of_the_mean():
    vectors = random_vectors(4)
    mean = methods.weight_average(vectors)["task0"]
    for knobs in ({}, TIES, {"base": "magmax"}, {"base": "tsv_merge"}):
        served = methods.lines(vectors, beta=0, **knobs)["task0"]
        lengths = [sum(float(d.abs().sum()) for d in v.values()) for v in (served, mean)]
        assert lengths[0] == pytest.approx(lengths[1], rel=1e-12)
    served = methods.lines(vectors, beta=0.7)["task0"]  # no name has a block
    torch.testing.assert_close(dict(served), dict(mean), **close)


def test_layers_in_blocks_of_rows_are_scaled_as_the_whole(monkeypatch):
    vectors = of_blocks()
    whole = read(methods.lines(vectors, beta=0.5, **TIES))
    monkeypatch.setattr(lazy, "BLOCK", 10)
    torch.testing.assert_close(read(methods.lines(vectors, beta=0.5, **TIES)), whole, **close)


def test_the_scale_of_the_base_does_not_matter():
    vectors = of_blocks()
    mean, total = (methods.lines(vectors, base=base, beta=0) for base in
                   ("weight_average", "task_arithmetic"))  # fmt: skip
    torch.testing.assert_close(read(mean), read(total), **close)


def test_of_a_base_that_serves_nothing_nothing_is_scaled():
    served = methods.lines(of_blocks(), base="zero_shot")["task0"]
    assert not any(delta.any() for delta in served.values())


def test_one_task_keeps_its_first_block_and_its_last_one_grows():
    vectors = of_blocks(1)
    for base in ("task_arithmetic", "individual"):
        served = methods.lines(vectors, base=base, beta=0.5)["task0"]
        for block, factor in ((0, 1), (3, 1.5)):
            name = f"visual.transformer.resblocks.{block}.ln_1.bias"
            torch.testing.assert_close(served[name], factor * vectors["task0"][name], **close)


@pytest.mark.parametrize("base", ["individual", "tsv_compress", "emr"])
def test_a_base_that_serves_each_its_own_is_refused(base):
    with pytest.raises(ValueError, match=f"base={base} serves each task its own vector"):
        methods.lines(of_blocks(2), base=base)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"base": "tie"}, "base='tie' is not a method"),
        ({"base": "regmean"}, "base=regmean needs inputs, which is data and no knob"),
        ({"base_knobs": {"density": 0.1}}, "base_knobs has 'density'"),
        ({"beta": -0.1}, "beta=-0.1 is not a number from 0 on"),
    ],
)
def test_knobs_are_checked_before_anything_is_read(knobs, message):
    with pytest.raises(ValueError, match=message):
        methods.lines({}, **knobs)
