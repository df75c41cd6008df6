"""Theorems of TALL masks, and parity with the code of their paper."""

from functools import partial

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.masked.tall_mask import task_lambdas

MASKED = {
    "ta": (methods.tall_mask_ta, methods.task_arithmetic),
    "ties": (
        partial(methods.tall_mask_ties, density=0.2),
        partial(methods.ties, density=0.2, merge="sum"),
    ),
}
each = pytest.mark.parametrize(("masked", "merged"), MASKED.values(), ids=MASKED)


@each
@pytest.mark.parametrize("mask_lambda", [0.2, 0.4, 1.0])
def test_entries_are_the_merged_ones_where_the_task_wants_them(masked, merged, mask_lambda):
    vectors = random_vectors(4)
    for task, vector in masked(vectors, mask_lambda=mask_lambda).items():
        whole = merged(vectors)[task]
        for name, served in vector.items():
            pairs = zip(
                vectors[task][name].flatten().tolist(), whole[name].flatten().tolist(), strict=True
            )
            expected = [m if abs(own) > mask_lambda * abs(m - own) else 0.0 for own, m in pairs]
            torch.testing.assert_close(served.flatten().tolist(), expected, **close)


@each
def test_a_larger_lambda_keeps_less(masked, merged):
    vectors = random_vectors(4)
    kept = [masked(vectors, mask_lambda=x)["task1"]["proj"] != 0 for x in (0, 0.2, 0.6, 2, 50)]
    for more, fewer in zip(kept, kept[1:], strict=False):
        assert (fewer <= more).all() and fewer.sum() < more.sum()
    assert torch.equal(kept[0], merged(vectors)["task1"]["proj"] != 0)


def test_tasks_of_disjoint_support_are_each_served_their_own():
    """There the sum is the task itself: distance zero, at any lambda."""
    deltas = randn(3, 30) * (torch.arange(30) % 3 == torch.arange(3)[:, None])
    vectors = {f"task{t}": {"w": delta} for t, delta in enumerate(deltas)}
    served = methods.tall_mask_ta(vectors, mask_lambda=5.0)
    torch.testing.assert_close(read(served), vectors, rtol=0, atol=0)


def test_one_task_alone_is_served_whole():
    vectors = random_vectors(1)
    served = read(methods.tall_mask_ta(vectors, mask_lambda=0.6))
    torch.testing.assert_close(served, vectors, rtol=0, atol=0)


@each
def test_every_task_may_have_a_lambda_of_its_own(masked, merged):
    vectors = random_vectors(3)
    own = {"task0": 0.2, "task1": 0.6, "task2": 0.4}
    served = read(masked(vectors, mask_lambda=own))
    for task, mask_lambda in own.items():
        alone = masked(vectors, mask_lambda=mask_lambda)[task]
        torch.testing.assert_close(served[task], dict(alone.items()), rtol=0, atol=0)
    narrow = masked(vectors, mask_lambda=0.2)["task1"]["proj"]
    assert not torch.equal(served["task1"]["proj"], narrow)


def test_consensus_counts_masks_of_each_tasks_own_lambda():
    vectors = random_vectors(3)
    own = {"task0": 0.2, "task1": 1.0, "task2": 0.4}
    masks = [v["proj"] != 0 for v in methods.tall_mask_ta(vectors, mask_lambda=own).values()]
    stays = sum(mask.int() for mask in masks) >= 2
    whole = methods.task_arithmetic(vectors)["task0"]["proj"]
    served = methods.consensus_ta(vectors, mask_lambda=own, min_tasks=2)["task0"]["proj"]
    torch.testing.assert_close(served, whole * stays, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("mask_lambda", "message"),
    [
        (-0.1, "mask_lambda=-0.1 is not a number from 0 on"),
        (float("nan"), "mask_lambda=nan"),
        (True, "mask_lambda=True"),
        ({"task0": 0.4}, "lacks them, first 'task1'.*one for each of: task0, task1"),
        ({"task0": 0.4, "task1": 0.4, "cars": 0.4}, "first 'cars'"),
        ({"task0": 0.4, "task1": -1}, "mask_lambda=-1 of task1 is not a number from 0 on"),
    ],
)
@each
def test_lambdas_that_are_none_are_refused(masked, merged, mask_lambda, message):
    with pytest.raises(ValueError, match=message):
        masked(random_vectors(2), mask_lambda=mask_lambda)


def test_one_lambda_a_task_is_a_knob_that_is_checked_before_the_tasks_are_known():
    """As tsv-bench checks method.mask_lambda='{a: 0.3, b: 0.4}'."""
    assert task_lambdas({"a": 0.3, "b": 0.4}, {}) == []
    for wrong, message in ({"a": -1}, "of a is not a number"), ({}, "has no task"):
        with pytest.raises(ValueError, match=message):
            task_lambdas(wrong, {})
