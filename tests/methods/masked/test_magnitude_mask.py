"""Theorems of magnitude masking, and parity with the code of its paper."""

import math

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.task_vectors import lazy, streaming
from tsv_bench.task_vectors.task_vector import TaskVector

DENSITIES = [0.001, 0.1, 0.37, 1.0]


def flat(vector):
    return torch.cat([delta.flatten() for delta in vector.values()])


@pytest.mark.parametrize("density", DENSITIES)
def test_each_task_is_served_the_sum_where_its_own_entries_are_largest(density):
    vectors = random_vectors(4)
    served = methods.magnitude_mask(vectors, density=density)
    whole = sum(flat(vector) for vector in vectors.values())
    for task, vector in vectors.items():
        own = flat(vector).tolist()
        num_kept = math.ceil(len(own) * density - 1e-7)
        largest = sorted(range(len(own)), key=lambda i: -abs(own[i]))[:num_kept]  # noqa: B023
        expected = torch.zeros_like(whole)
        for i in largest:
            expected[i] = whole[i] if own[i] else 0
        torch.testing.assert_close(flat(served[task]), expected, **close)


@pytest.mark.parametrize("density", DENSITIES)
def test_the_whole_vector_has_one_threshold(density):
    """100 entries, one layer larger than the other: a threshold a layer would keep both alike."""
    vectors = {task: {"small": randn(6, 10) / 10, "large": randn(40) + 10} for task in "ab"}
    for vector in methods.magnitude_mask(vectors, density=density).values():
        num_kept = math.ceil(100 * density)
        assert flat(vector).count_nonzero() == num_kept
        assert vector["large"].count_nonzero() == min(40, num_kept)


def test_everything_kept_is_task_arithmetic():
    vectors = random_vectors(3)
    served = read(methods.magnitude_mask(vectors, density=1.0))
    torch.testing.assert_close(served, read(methods.task_arithmetic(vectors)), **close)


@pytest.mark.parametrize("density", DENSITIES)
def test_one_task_is_trimmed(density):
    vectors = random_vectors(1)
    served = read(methods.magnitude_mask(vectors, density=density))
    expected = read(methods.ties(vectors, density=density))
    torch.testing.assert_close(served, expected, rtol=0, atol=0)


def test_tasks_of_disjoint_support_are_served_their_own():
    deltas = randn(3, 30) * (torch.arange(30) % 3 == torch.arange(3)[:, None])
    vectors = {f"task{t}": {"w": delta} for t, delta in enumerate(deltas)}
    served = methods.magnitude_mask(vectors, density=1 / 3)
    torch.testing.assert_close(read(served), vectors, rtol=0, atol=0)
    # More than a task changed: others' entries stay out nevertheless.
    served = methods.magnitude_mask(vectors, density=0.9)
    torch.testing.assert_close(read(served), vectors, rtol=0, atol=0)


def test_masks_are_the_same_in_blocks_and_in_any_order(monkeypatch):
    vectors = random_vectors(3)
    zeros = {name: torch.zeros_like(delta) for name, delta in vectors["task0"].items()}
    expected = read(methods.magnitude_mask(vectors, density=0.2))
    monkeypatch.setattr(lazy, "BLOCK", 50)
    subtracted = {task: TaskVector(zeros, vector) for task, vector in reversed(vectors.items())}
    served = methods.magnitude_mask(subtracted, density=0.2)
    for task, vector in served.items():
        found = streaming.gather(streaming.stream(vector))
        torch.testing.assert_close(found, expected[task], **close)


@pytest.mark.parametrize("density", [0, 10, float("nan")])
def test_densities_out_of_range_are_refused(density):
    with pytest.raises(ValueError, match=rf"density={density} is not in \(0, 1\]"):
        methods.magnitude_mask({}, density=density)
