"""Theorems of SLERP, in float64, and that it is for two tasks only."""

import math

import pytest
import torch
from made_up.merges import merge, write_checkpoints
from made_up.vectors import close, randn, random_vectors, read
from stand_ins.commands import SMALL, tsv
from torch.linalg import vector_norm

from tsv_bench import methods
from tsv_bench.methods.entrywise.slerp import between

shares = pytest.mark.parametrize("t", [0, 0.2, 0.5, 0.9, 1])


def by_definition(first, second, t):
    """By the angle, as mergekit has it; of vectors that are not parallel."""
    angle = torch.acos((first * second).sum() / vector_norm(first) / vector_norm(second))
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)


@shares
def test_slerp_is_its_definition_layer_by_layer(t):
    vectors = random_vectors(2)
    served = methods.slerp(vectors, t=t)["task0"]
    first, second = vectors.values()
    for name, delta in served.items():
        if delta.ndim and name != "frozen":
            torch.testing.assert_close(delta, by_definition(first[name], second[name], t), **close)


@shares
def test_of_equal_lengths_it_goes_along_the_circle_at_an_even_pace(t):
    first, second = (x / vector_norm(x) for x in (randn(4, 5), randn(4, 5)))
    found = between(first, second, t)
    assert float(vector_norm(found)) == pytest.approx(1, abs=1e-12)
    whole, part = (math.acos(float((first * x).sum().clamp(max=1))) for x in (second, found))
    assert part == pytest.approx(t * whole, abs=1e-7)  # acos near 1 has half the digits


def test_both_ends_are_the_tasks():
    first, second = randn(6), 3 * randn(6)
    torch.testing.assert_close(between(first, second, 0), first, **close)
    torch.testing.assert_close(between(first, second, 1), second, **close)


@shares
@pytest.mark.parametrize("factor", [1.0, 2.5, -0.7, 0.0])
def test_parallel_layers_and_unchanged_ones_are_interpolated_linearly(t, factor):
    first = randn(3, 3)
    expected = (1 - t) * first + t * factor * first
    torch.testing.assert_close(between(first, factor * first, t), expected, **close)


@pytest.mark.parametrize(("cosine", "is_linear"), [(0.9996, True), (0.9994, False)])
def test_parallel_begins_where_mergekit_says(cosine, is_linear):
    second = torch.tensor([cosine, math.sqrt(1 - cosine**2)], dtype=torch.float64)
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    length = float(vector_norm(between(first, second, 0.5)))
    assert (length < 1 - 1e-5) == is_linear


def test_t_counts_from_the_first_task():
    vectors = random_vectors(2)
    one = read(methods.slerp(vectors, t=0.3))["task0"]
    other = read(methods.slerp(dict(reversed(vectors.items())), t=0.7))["task0"]
    torch.testing.assert_close(one, other, **close)


def test_a_merge_of_other_than_two_files_is_refused_before_any_work(tmp_path):
    write_checkpoints(tmp_path)
    good = merge(tmp_path, "good.safetensors", "method=slerp")
    assert good.code == 0, good.err
    result = tsv(
        tmp_path, "merge", "method=slerp", "pretrained=base.safetensors",
        "finetuned={a: a.safetensors}", "output=out.safetensors",
    )  # fmt: skip
    assert result.code != 0 and not (tmp_path / "out.safetensors").exists()
    assert "slerp is for exactly 2 tasks, and the tasks here are 1: a. Name 2" in result.err


def test_a_suite_of_other_than_two_tasks_is_refused_before_any_work(tmp_path):
    result = tsv(tmp_path, "bench", "method=slerp", *SMALL[1:], "suite.tasks=[signs,shapes,digits]")
    assert result.code != 0 and not list(tmp_path.iterdir())
    assert "slerp is for exactly 2 tasks, and the tasks here are 3: signs, shapes" in result.err
