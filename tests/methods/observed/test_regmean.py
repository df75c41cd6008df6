"""Theorems of RegMean, in float64."""

import pytest
import torch
from made_up.statistics import grams_of, made_up_grams, made_up_inputs
from made_up.vectors import SHAPES, close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.task_vectors.statistics import Gathered, Statistics


def by_definition(weights, inputs, off_diagonal):
    """On weights as inputs by outputs, a plain inverse: the paper's equation."""
    numerator = denominator = 0
    for weight, x in zip(weights, inputs, strict=True):
        gram = x.mT @ x / len(x)
        gram = off_diagonal * gram + (1 - off_diagonal) * gram.diagonal().diag()
        numerator, denominator = numerator + gram @ weight.mT, denominator + gram
    return (torch.linalg.inv(denominator) @ numerator).mT


@pytest.mark.parametrize("off_diagonal", [0.95, 0.6, 1, 0])
def test_it_is_the_papers_equation_on_weights(off_diagonal):
    vectors = random_vectors(3)
    inputs = made_up_inputs(SHAPES, vectors)
    grams = {task: grams_of(x) for task, x in inputs.items()}
    merged = methods.regmean(vectors, inputs=grams, off_diagonal=off_diagonal)["task0"]
    for name in ("in_proj_weight", "proj", "c_proj.weight", "text_projection"):
        base = randn(*merged[name].shape)
        weights = [base + vector[name] for vector in vectors.values()]
        seen = [x[name] for x in inputs.values()]
        expected = by_definition(weights, seen, off_diagonal)
        torch.testing.assert_close(base + merged[name], expected, **close)


def test_its_outputs_are_nearest_to_the_tasks_own():
    """Moving it to any side raises the sum of squares: its gradient is zero."""
    vectors = random_vectors(3)
    inputs = made_up_inputs(SHAPES, vectors)
    grams = {task: grams_of(x) for task, x in inputs.items()}
    merged = methods.regmean(vectors, inputs=grams, off_diagonal=1)["task0"]["proj"]
    merged.requires_grad_()
    loss = sum((inputs[t]["proj"] @ (merged - vectors[t]["proj"]).mT).square().sum() for t in grams)
    loss.backward()
    assert loss > 1 and merged.grad.abs().max() < 1e-9


def test_tasks_weigh_the_same_however_many_inputs_they_have():
    vectors = random_vectors(2)
    inputs = made_up_inputs(SHAPES, vectors)
    once = {task: grams_of(x) for task, x in inputs.items()}
    twice = {name: torch.cat([x, x]) for name, x in inputs["task1"].items()}
    more = once | {"task1": grams_of(twice)}
    merged, same = (read(methods.regmean(vectors, inputs=x)) for x in (once, more))
    torch.testing.assert_close(merged, same, **close)
    unknown = {task: dict(of_task) for task, of_task in more.items()}
    assert not torch.allclose(methods.regmean(vectors, inputs=unknown)["task0"]["proj"],
                              merged["task0"]["proj"])  # fmt: skip


@pytest.mark.parametrize("num_inputs", [1, 3, 30])
def test_directions_that_no_task_reaches_have_the_mean(num_inputs):
    """Beside the explicit eigenvectors of the sum, of which it is the limit of a small ridge."""
    vectors = random_vectors(3)
    grams = made_up_grams(SHAPES, vectors, num_inputs)
    merged = methods.regmean(vectors, inputs=grams, off_diagonal=1)["task0"]["c_proj.weight"]
    deltas = torch.stack([vector["c_proj.weight"] for vector in vectors.values()])
    g = torch.stack([of_task["c_proj.weight"] / num_inputs for of_task in grams.values()])
    values, vectors = torch.linalg.eigh(g.sum(0))
    spanned = values > 1e-10 * values[-1]
    assert spanned.sum() == min(3 * num_inputs, 40)
    kept, mean = vectors[:, spanned], deltas.mean(0)
    expected = mean + ((deltas - mean) @ g).sum(0) @ kept / values[spanned] @ kept.mT
    torch.testing.assert_close(merged, expected, rtol=1e-8, atol=1e-8)
    null = vectors[:, ~spanned]
    torch.testing.assert_close(merged @ null, mean @ null, rtol=1e-8, atol=1e-8)
    ridge = 1e-7 * torch.eye(40, dtype=torch.float64)
    limit = ((deltas @ g).sum(0) + mean @ ridge) @ torch.linalg.inv(g.sum(0) + ridge)
    torch.testing.assert_close(merged, limit, rtol=1e-3, atol=1e-3)


def test_dead_inputs_have_the_mean():
    vectors = random_vectors(3)
    inputs = made_up_inputs(SHAPES, vectors)
    for of_task in inputs.values():
        of_task["proj"][:, [2, 5]] = 0
    grams = {task: grams_of(x) for task, x in inputs.items()}
    mean = methods.weight_average(vectors)["task0"]["proj"]
    for off_diagonal in (0.95, 1):
        merged = methods.regmean(vectors, inputs=grams, off_diagonal=off_diagonal)["task0"]["proj"]
        torch.testing.assert_close(merged[:, [2, 5]], mean[:, [2, 5]], **close)
        assert not torch.allclose(merged[:, 0], mean[:, 0])


def test_a_task_whose_inputs_are_alone_in_their_directions_keeps_its_outputs():
    """Inputs of the tasks are orthogonal to each other: every task is served as by itself."""
    vectors = random_vectors(2)
    basis = torch.linalg.qr(randn(12, 12)).Q
    seen = [randn(20, 6) @ basis[:, :6].mT, randn(20, 6) @ basis[:, 6:].mT]
    grams = {f"task{t}": grams_of({"proj": x}) for t, x in enumerate(seen)}
    merged = methods.regmean(vectors, inputs=grams, off_diagonal=1)["task0"]["proj"]
    for t, x in enumerate(seen):
        torch.testing.assert_close(x @ merged.mT, x @ vectors[f"task{t}"]["proj"].mT, **close)


def test_weights_that_are_stored_the_other_way_round_are_merged_the_same():
    vectors = random_vectors(3)
    inputs = made_up_inputs(SHAPES, vectors)
    flipped = {t: {n: d.mT if d.ndim == 2 else d for n, d in v.items()} for t, v in vectors.items()}
    grams = {task: grams_of(x) for task, x in inputs.items()}
    others = {task: grams_of(x, axis=0) for task, x in inputs.items()}
    merged = methods.regmean(vectors, inputs=grams)["task0"]
    other = methods.regmean(flipped, inputs=others)["task0"]
    for name in ("in_proj_weight", "proj", "c_proj.weight"):
        torch.testing.assert_close(other[name].mT, merged[name], rtol=0, atol=0)


def test_counts_of_some_tasks_only_are_refused():
    vectors = random_vectors(2)
    grams = made_up_grams(SHAPES, vectors)
    grams["task1"] = Statistics(dict(grams["task1"]), {"bias": Gathered(3)})
    served = methods.regmean(vectors, inputs=grams)
    with pytest.raises(ValueError, match="known of some tasks and not of others"):
        served["task0"]["proj"]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_off_diagonal_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"off_diagonal=.* is not in \[0, 1\]"):
        methods.regmean({}, inputs={}, off_diagonal=value)
