"""Theorems of EMR-Merging."""

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.masked.emr import rescalers, unified
from tsv_bench.task_vectors.lazy import lazy_vectors


def flat(vector):
    return torch.cat([delta.flatten() for delta in vector.values()])


def reference(vectors):
    """From the definition, entry by entry of whole vectors."""
    taus = torch.stack([flat(vector) for vector in vectors.values()])
    sign = torch.sign(taus.sum(0))
    agreeing = torch.where(taus.sign() == sign, taus.abs(), 0.0)
    merged = sign * agreeing.max(0).values
    served = {}
    for task, tau in zip(vectors, taus, strict=True):
        kept = torch.where(tau * merged > 0, merged, 0.0)
        served[task] = kept * (tau.abs().sum() / kept.abs().sum())
    return served


@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_emr_is_its_definition(num_tasks):
    vectors = random_vectors(num_tasks)
    served = {task: flat(vector) for task, vector in methods.emr(vectors).items()}
    torch.testing.assert_close(served, reference(vectors), **close)


def test_tasks_that_touch_different_entries_are_each_served_their_own():
    masks = torch.randint(3, (50,))
    vectors = {f"{t}": {"a": randn(50) * (masks == t)} for t in range(3)}
    torch.testing.assert_close(read(methods.emr(vectors)), vectors, **close)


def test_every_task_is_served_its_own_signs_and_mean_magnitude():
    vectors = random_vectors(4)
    for task, vector in methods.emr(vectors).items():
        tau, found = flat(vectors[task]), flat(vector)
        assert (tau * found >= 0).all()
        torch.testing.assert_close(found.abs().sum(), tau.abs().sum(), **close)


def test_where_two_tasks_are_served_something_it_is_the_same_but_for_the_rescaling():
    first, second = (flat(vector) for vector in methods.emr(random_vectors(2)).values())
    both = (first != 0) & (second != 0)
    ratios = first[both] / second[both]
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios), **close)


def test_the_unified_entry_is_the_largest_that_agrees_with_the_sum():
    deltas = torch.tensor([[3.0, -3.0, 1.0, 0.0], [-1.0, 2.0, -1.0, 0.0], [-1.0, 2.0, 0.0, 0.0]])
    assert unified(deltas).tolist() == [3, 2, 0, 0]
    # In the second row the largest magnitude is of the other sign; the third cancels exactly.


def test_a_task_that_changed_nothing_is_served_nothing_and_changes_nothing():
    vectors = random_vectors(3)
    idle = {name: torch.zeros_like(delta) for name, delta in vectors["task0"].items()}
    served, without = read(methods.emr(vectors | {"idle": idle})), read(methods.emr(vectors))
    torch.testing.assert_close(served.pop("idle"), idle, rtol=0, atol=0)
    torch.testing.assert_close(served, without, **close)


def test_rescaling_is_of_the_whole_vector_not_of_the_means_of_layers():
    vectors = [
        {"a": torch.tensor([2.0, 2.0]), "b": torch.tensor([1.0, 0.0, 0.0])},
        {"a": torch.tensor([-1.0, 0.5]), "b": torch.tensor([0.0, 3.0, 0.0])},
    ]
    # Unified: a = 2, 2 and b = 1, 3, 0. Of these the second task keeps 2 + 3, its own are 4.5.
    assert rescalers(lazy_vectors(vectors)) == [1.0, 0.9]
