"""Theorems of TIES."""

import math

import pytest
import torch
from made_up.vectors import randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.entrywise.ties import merge_agreeing
from tsv_bench.task_vectors.order_statistics import trim_threshold


@pytest.mark.parametrize("merge", ["mean", "sum"])
def test_ties_of_one_task_without_trimming_is_that_task(merge):
    vectors = random_vectors(1)
    served = methods.ties(vectors, density=1.0, merge=merge)
    torch.testing.assert_close(read(served), vectors, rtol=0, atol=0)


@pytest.mark.parametrize("density", [0.001, 0.07, 0.2, 0.5, 1.0])
def test_ties_keeps_the_largest_entries_of_the_whole_vector(density):
    # 100 entries, one layer ten times larger: a threshold per layer would keep both alike.
    vector = {"small": randn(6, 10) / 10, "large": randn(40) + 10}
    trimmed = methods.ties({"a": vector}, density=density)["a"]
    num_kept = math.ceil(100 * density - 1e-6)
    magnitudes = torch.cat([delta.flatten() for delta in vector.values()]).abs()
    kept = torch.cat([delta.flatten() for delta in trimmed.values()]).abs()
    assert kept.count_nonzero() == num_kept
    expected = magnitudes.sort(descending=True).values[:num_kept]
    assert torch.equal(kept.sort(descending=True).values[:num_kept], expected)


def test_ties_keeps_entries_that_equal_the_threshold():
    vector = {"a": torch.tensor([2.0, -2.0, 1.0]), "b": torch.tensor([[2.0, 0.5]])}
    assert trim_threshold(vector, 0.2) == 2.0
    trimmed = methods.ties({"t": vector}, density=0.2)["t"]
    assert trimmed["a"].tolist() == [2, -2, 0] and trimmed["b"].tolist() == [[2, 0]]


@pytest.mark.parametrize(
    ("merge", "expected"), [("mean", [2, -3, 0, 5, 0]), ("sum", [4, -3, 0, 5, 0])]
)
def test_ties_elects_the_sign_of_the_sum(merge, expected):
    deltas = torch.tensor(
        [
            [3.0, 1.0, 2.0, 5.0, 0.0],
            [1.0, 1.0, -2.0, 0.0, 0.0],
            [-2.0, -3.0, 0.0, 0.0, 0.0],
        ]  # majority: positive in the second column, and yet its sum is negative
    )
    assert merge_agreeing(deltas, [0.0] * 3, merge).tolist() == expected


def test_ties_elects_the_sign_among_what_is_kept():
    # Each task has one entry above its threshold. Untrimmed, the first column would be negative.
    deltas = torch.tensor([[3.0, 1.0], [-2.0, 9.0], [-2.0, 9.0]])
    vectors = {f"task{t}": {"w": delta} for t, delta in enumerate(deltas)}
    assert methods.ties(vectors, density=0.5)["task0"]["w"].tolist() == [3, 9]


@pytest.mark.parametrize("merge", ["mean", "sum"])
def test_with_the_scope_of_a_tensor_each_layer_is_merged_as_if_it_were_alone(merge):
    vectors = random_vectors(3)
    whole = methods.ties(vectors, density=0.3, merge=merge, scope="tensor")["task0"]
    for name in vectors["task0"]:
        alone = {task: {name: vector[name]} for task, vector in vectors.items()}
        expected = methods.ties(alone, density=0.3, merge=merge)["task0"][name]
        torch.testing.assert_close(whole[name], expected, rtol=1e-14, atol=0)
