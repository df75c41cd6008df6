"""Theorems of WUDI-Merging and its two solvers."""

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.matrixwise.wudi import interference, merge_matrix
from tsv_bench.task_vectors.streaming import observer, stream

SHAPES = [(12, 12), (30, 10), (10, 40)]
shapes = pytest.mark.parametrize(("m", "n"), SHAPES)
solvers = pytest.mark.parametrize("solver", ["adam", "closed_form"])
# Entries of one are some 2000 times those of fine-tuning, and so is the published learning rate.
few = {"iterations": 300, "learning_rate": 2e-2}


def reference(deltas, iterations, learning_rate):
    """Torch's Adam and autograd on the loss of the paper, task by task."""
    merged = deltas.sum(0).clone().requires_grad_()
    optimizer = torch.optim.Adam([merged], lr=learning_rate)
    for _ in range(iterations):
        optimizer.zero_grad()
        loss = sum(((merged - t) @ t.T).norm() ** 2 / t.norm() ** 2 for t in deltas)
        loss.backward()
        optimizer.step()
    return merged.detach()


@shapes
@pytest.mark.parametrize("iterations", [0, 1, 50])
def test_adam_is_torchs_on_the_papers_loss(m, n, iterations):
    deltas = randn(4, m, n)
    merged = merge_matrix(deltas, "adam", iterations, 1e-3)
    torch.testing.assert_close(merged, reference(deltas, iterations, 1e-3), **close)


def test_interference_is_what_the_merged_matrix_does_to_inputs_of_the_tasks():
    deltas, merged = randn(3, 5, 7), randn(5, 7)
    expected = sum(
        sum(float(((merged - task) @ row).square().sum()) for row in task)
        / float(task.square().sum())
        for task in deltas
    )
    assert float(interference(merged, deltas)) == pytest.approx(expected, rel=1e-12)


@shapes
@pytest.mark.parametrize("num_tasks", [2, 5, 15])
def test_side_by_side_adam_is_below_task_arithmetic_and_the_closed_form_below_adam(m, n, num_tasks):
    deltas = randn(num_tasks, m, n)
    of_the_sum = interference(deltas.sum(0), deltas)
    by_adam = interference(merge_matrix(deltas, "adam", **few), deltas)
    by_closed_form = interference(merge_matrix(deltas, "closed_form", **few), deltas)
    assert by_closed_form < by_adam < 0.6 * of_the_sum
    # Left to run, Adam comes near the same objective, from above: to 3e-3 at worst when measured.
    longer = interference(merge_matrix(deltas, "adam", 6000, 2e-3), deltas)
    assert by_closed_form - 1e-9 * of_the_sum <= longer < by_closed_form + 1e-2 * of_the_sum


@solvers
def test_at_the_published_scale_the_defaults_lower_the_objective(solver):
    # Fine-tuning moves an entry by some 1e-4 to 1e-3; the learning rate is made for that.
    deltas = 5e-4 * randn(8, 48, 32) + 2e-4 * randn(48, 32)
    merged = merge_matrix(deltas, solver, 300, 1e-5)
    assert interference(merged, deltas) < 0.5 * interference(deltas.sum(0), deltas)


@shapes
@pytest.mark.parametrize("num_tasks", [2, 8])
def test_at_the_closed_form_the_gradient_is_zero(m, n, num_tasks):
    deltas = randn(num_tasks, m, n)
    merged = merge_matrix(deltas, "closed_form", **few).requires_grad_()
    interference(merged, deltas).backward()
    torch.testing.assert_close(merged.grad, torch.zeros(m, n).double(), **close)


def test_the_closed_form_is_the_minimizer_nearest_to_the_sum():
    deltas = randn(3, 4, 40)  # 12 rows of 40: most inputs are of no task
    moved = merge_matrix(deltas, "closed_form", **few) - deltas.sum(0)
    inputs = deltas.reshape(12, 40)
    of_no_task = torch.linalg.qr(inputs.mT, mode="complete").Q[:, 12:]
    assert moved.abs().max() > 0.01
    torch.testing.assert_close(moved @ of_no_task, torch.zeros(4, 28).double(), **close)
    # With room for all tasks no interference is left.
    assert interference(deltas.sum(0) + moved, deltas) < 1e-18


@solvers
def test_tasks_with_orthogonal_inputs_are_summed(solver):
    basis = torch.linalg.qr(randn(30, 30)).Q.split(10)
    deltas = torch.stack([randn(8, 10) @ rows for rows in basis])
    # Where the gradient is rounding, Adam's steps are too long for it and end at one step's length.
    atol = 2e-2 if solver == "adam" else 1e-10
    merged = merge_matrix(deltas, solver, **few)
    torch.testing.assert_close(merged, deltas.sum(0), rtol=0, atol=atol)


@solvers
def test_identical_tasks_are_merged_to_one_of_them(solver):
    task = randn(10, 6)
    deltas = torch.stack([task] * 3)
    merged = merge_matrix(deltas, solver, 6000, 2e-3)
    # Adam comes near it in what counts; where its task has small singular values it is slow.
    assert interference(merged, deltas) < 1e-4 * interference(deltas.sum(0), deltas)
    if solver == "closed_form":
        torch.testing.assert_close(merged, task, **close)


@solvers
def test_one_task_is_served_unchanged(solver):
    vectors = random_vectors(1)
    served = methods.wudi(vectors, solver=solver, **few)
    torch.testing.assert_close(read(served), vectors, **close)


@solvers
def test_a_task_that_changed_nothing_changes_nothing(solver):
    deltas = randn(3, 10, 6)
    with_idle = torch.cat([deltas, torch.zeros(1, 10, 6)])
    torch.testing.assert_close(
        merge_matrix(with_idle, solver, **few), merge_matrix(deltas, solver, **few), **close
    )


@solvers
@pytest.mark.parametrize(("m", "n"), [(12, 12), (30, 10)])
def test_the_order_of_tasks_does_not_matter(solver, m, n):
    # More rows than inputs: the closed form is as exact as its equations are well-conditioned.
    deltas = randn(5, m, n)
    merged, flipped = (merge_matrix(x, solver, **few) for x in (deltas, deltas.flip(0)))
    torch.testing.assert_close(merged, flipped, **close)


def test_the_closed_form_knows_no_scale():
    deltas = randn(3, 10, 6)
    merged, small = (merge_matrix(scale * deltas, "closed_form", **few) for scale in (1, 1e-4))
    torch.testing.assert_close(small * 1e4, merged, **close)


def test_a_relative_learning_rate_is_in_units_of_the_deltas_and_knows_no_scale():
    deltas = randn(3, 10, 6)
    rms = float(deltas.square().mean().sqrt())
    merged = merge_matrix(deltas, "adam", 50, 1e-5, relative_learning_rate=0.02)
    # Beside entries of another size Adam's epsilon of 1e-8 counts differently.
    absolute = merge_matrix(deltas, "adam", 50, 0.02 * rms)
    torch.testing.assert_close(merged, absolute, rtol=1e-6, atol=1e-7)
    small = merge_matrix(1e-4 * deltas, "adam", 50, 1e-5, relative_learning_rate=0.02)
    torch.testing.assert_close(small * 1e4, merged, **close)
    assert not merge_matrix(torch.zeros(2, 3, 4), "adam", 5, 1e-5, relative_learning_rate=1.0).any()


@solvers
def test_float32_is_as_good_as_float64(solver):
    deltas = 1e-3 * randn(6, 40, 30)
    exact = merge_matrix(deltas, solver, 300, 1e-5)
    merged = merge_matrix(deltas.float(), solver, 300, 1e-5)
    # Sums and steps are rounded to 6e-8 of entries of 1e-3.
    torch.testing.assert_close(merged.double(), exact, rtol=0, atol=1e-7)


@solvers
def test_what_is_no_matrix_is_averaged(solver):
    vectors = random_vectors(3)
    served = methods.wudi(vectors, solver=solver, **few, exclude=["proj"])["task0"]
    for name in ("bias", "conv1.weight", "proj"):
        average = torch.stack([vector[name] for vector in vectors.values()]).mean(0)
        torch.testing.assert_close(served[name], average, **close)


def test_every_step_within_a_layer_is_shown():
    seen = []

    def show(steps, total, label):
        for step in steps:
            seen.append((step, total, label))
            yield step

    vectors = {task: {"a": randn(6, 4), "b": randn(3, 7), "bias": randn(5)} for task in "xy"}
    served = methods.wudi(vectors, solver="adam", iterations=3, learning_rate=1e-2)["x"]
    token = observer.set(show)
    for _ in stream(served):  # computes layers in threads of its own
        pass
    observer.reset(token)
    expected = [(i, 3, f"Adam, {size}") for size in ("6 x 4", "3 x 7") for i in (1, 2, 3)]
    assert sorted(seen) == sorted(expected)
