"""Theorems of PCB-Merging, and of the order statistics of vectors that are not in memory."""

import math

import pytest
import torch
from made_up.vectors import close, randn, random_vectors

from tsv_bench import methods
from tsv_bench.methods.entrywise.pcb import CLAMPED
from tsv_bench.task_vectors.order_statistics import order_statistics


def flat(vector):
    return torch.cat([delta.flatten() for delta in vector.values()])


def nth_largest(values, share):
    return values.sort(descending=True).values[max(1, math.ceil(share * len(values) - 1e-6)) - 1]


def to_unit(values, low, high):
    return (values.clamp(low, high) - low) / (high - low)


def reference(vectors, density):
    """From the paper's equations, with whole vectors in memory."""
    taus = torch.stack([flat(vector) for vector in vectors.values()])
    weights, clamped = [], []
    for tau in taus:
        ends = nth_largest(tau.abs(), 1 - CLAMPED), nth_largest(tau.abs(), CLAMPED)
        intra = torch.exp(len(taus) * to_unit(tau.abs(), *ends) ** 2)
        beta = intra * torch.tanh(tau * taus.sum(0))
        weights.append(to_unit(beta, nth_largest(beta, density), beta.max()))
        clamped.append(tau.sign() * tau.abs().clamp(*ends))
    weights, clamped = torch.stack(weights), torch.stack(clamped)
    return (weights * clamped).sum(0) / weights.sum(0).clamp(min=1e-12)


@pytest.mark.parametrize("density", [0.05, 0.1, 0.4])
@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_pcb_is_its_definition(num_tasks, density):
    # Scaled, so that layers differ and tanh is not all ones.
    vectors = random_vectors(num_tasks)
    for vector in vectors.values():
        vector.update({name: delta / (1 + len(name)) for name, delta in vector.items()})
    served = methods.pcb(vectors, density=density)["task0"]
    torch.testing.assert_close(flat(served), reference(vectors, density), **close)


def test_as_many_tasks_as_scores_can_have_and_no_more():
    """The largest is exp(tasks), and float32 ends at exp(88.7)."""
    vectors = {f"{i}": {"x": randn(12, 10) / 100} for i in range(89)}
    narrow = {task: {"x": vector["x"].float()} for task, vector in vectors.items()}
    with pytest.raises(ValueError, match="of 89 tasks: its scores.* Merge at most 88 tasks"):
        methods.pcb(narrow, density=0.2)
    del vectors["0"], narrow["0"]
    served = methods.pcb(narrow, density=0.2)["1"]["x"]
    expected = reference(vectors, 0.2).reshape(12, 10)
    torch.testing.assert_close(served.double(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5])
def test_of_one_task_the_entries_with_the_highest_score_are_left_as_they_are(density):
    # With one task the score grows with the magnitude, and a mean of one is itself.
    vectors = {"a": {"x": randn(40, 25), "y": randn(500) / 7}}
    tau, served = (flat(v) for v in (vectors["a"], methods.pcb(vectors, density=density)["a"]))
    # The lowest that is kept is the zero of the scores.
    kept = tau.abs() > nth_largest(tau.abs(), density)
    torch.testing.assert_close(served[kept], tau[kept], **close)
    assert not served[~kept].any()


def test_every_entry_lies_between_those_of_the_tasks_that_agree_with_the_sum():
    vectors = random_vectors(4)
    taus = torch.stack([flat(vector) for vector in vectors.values()])
    served = flat(methods.pcb(vectors, density=0.3)["task0"])
    agreeing = taus * (taus.sign() == taus.sum(0).sign())
    assert (served * taus.sum(0) >= 0).all()
    assert (served.abs() <= agreeing.abs().max(0).values + 1e-12).all()


def test_identical_tasks_are_served_what_one_of_them_keeps():
    tau = random_vectors(1)["task0"]
    served = flat(methods.pcb({"a": tau, "b": tau, "c": tau}, density=0.2)["a"])
    kept = served != 0
    assert 0.15 < kept.double().mean() <= 0.2
    torch.testing.assert_close(served[kept], flat(tau)[kept], **close)


def test_flipping_all_signs_flips_the_result():
    vectors = random_vectors(3)
    flipped = {task: {n: -d for n, d in vector.items()} for task, vector in vectors.items()}
    served = [flat(methods.pcb(v, density=0.2)["task0"]) for v in (vectors, flipped)]
    torch.testing.assert_close(served[0], -served[1], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_order_statistics_are_those_of_the_sorted_vector(dtype):
    vectors = [{n: d.abs() for n, d in v.items()} for v in random_vectors(3, dtype).values()]
    shares = [0, 1e-4, 0.05, 0.5, 0.9999, 1]
    found = order_statistics(vectors, lambda deltas: deltas, shares)
    expected = [[nth_largest(flat(vector), share) for share in shares] for vector in vectors]
    assert torch.equal(found, torch.tensor(expected, dtype=dtype))


def test_zeros_of_either_sign_are_the_smallest():
    vectors = [{"a": torch.tensor([-0.0, 0.0, -0.0, 1.0, 2.0])}]
    found = order_statistics(vectors, lambda deltas: deltas, [0.2, 0.4, 0.6, 1])
    assert found.tolist() == [[2, 1, 0, 0]]


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan")])
def test_density_out_of_range_is_refused(density):
    with pytest.raises(ValueError, match=r"density=.* is not in \(0, 1\]"):
        methods.pcb({}, density=density)
