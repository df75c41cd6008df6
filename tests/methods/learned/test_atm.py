"""ATM: its theorems with gradient descent in float64, its definition typed again, and its words."""

import weakref

import pytest
import torch
from made_up.bench import MadeUpBench
from made_up.vectors import SHAPES, close, random_vectors, read

from tsv_bench import methods

TASKS = ["task0", "task1", "task2"]


@pytest.fixture
def bench():
    return MadeUpBench(TASKS)


def served(bench, num_tasks=3, vectors=None, **knobs):
    vectors = vectors or random_vectors(num_tasks)
    return read(methods.atm(vectors, bench=bench, **knobs))["task0"]


def test_a_round_of_one_step_on_all_images_is_a_step_on_the_tasks_mean_loss(bench):
    merged = served(bench, rounds=1, steps_per_round=1, rate=0.7)
    weights = {n: w.clone().requires_grad_() for n, w in bench.pretrained.items()}
    torch.stack([bench.loss(task, weights) for task in TASKS]).mean().backward()
    for name in SHAPES:
        gradient = weights[name].grad
        step = torch.zeros_like(merged[name]) if gradient is None else -0.7 * gradient
        torch.testing.assert_close(merged[name], step, **close)


def test_rounds_of_one_step_are_gradient_descent_on_the_tasks_mean_loss(bench):
    merged = served(bench, rounds=4, steps_per_round=1, rate=0.7)
    weights = {n: w.clone().requires_grad_() for n, w in bench.pretrained.items()}
    for _ in range(4):
        torch.stack([bench.loss(task, weights) for task in TASKS]).mean().backward()
        with torch.no_grad():
            for weight in weights.values():
                if weight.grad is not None:
                    weight -= 0.7 * weight.grad
                    weight.grad = None
    for name in SHAPES:
        moved = (weights[name] - bench.pretrained[name]).detach()
        torch.testing.assert_close(merged[name], moved, **close)


def by_definition(bench, start, steps, alpha, rule):
    """theta + alpha * rule of theta_t - theta, round after round; minus the pretrained."""
    theta = {n: w + start[n] for n, w in bench.pretrained.items()}
    for number in range(len(steps)):
        tuned = {}
        for task in TASKS:
            own = theta
            for step in range(steps[number]):
                own = bench.fine_tune(task, own, steps=1, first=step, name="again", rate=0.5)
            tuned[task] = {n: own[n] - theta[n] for n in theta}
        merged = rule(tuned)
        theta = {n: theta[n] + alpha * merged[n] for n in theta}
    return {n: theta[n] - bench.pretrained[n] for n in theta}


def mean_of(tuned):
    return {n: sum(tuned[task][n] for task in TASKS) / len(TASKS) for n in SHAPES}


def test_it_is_its_definition(bench):
    vectors = random_vectors(3)
    knobs = {"rounds": 3, "steps_per_round": 2, "round_alpha": 0.8, "rate": 0.5}
    start = {n: torch.zeros_like(p) for n, p in bench.pretrained.items()}
    expected = by_definition(bench, start, [2, 2, 2], 0.8, mean_of)
    torch.testing.assert_close(served(bench, vectors=vectors, **knobs), expected, **close)
    start = {n: 0.3 * sum(vectors[task][n] for task in TASKS) for n in SHAPES}
    expected = by_definition(bench, start, [2, 2, 2], 0.8, mean_of)
    more = {"start": "task_arithmetic", "start_alpha": 0.3}
    torch.testing.assert_close(served(bench, vectors=vectors, **knobs, **more), expected, **close)


def test_another_method_merges_what_tasks_changed(bench):
    def ties(tuned):
        return methods.ties(tuned, density=0.3)["task0"]

    start = {n: torch.zeros_like(p) for n, p in bench.pretrained.items()}
    expected = by_definition(bench, start, [2, 2], 1.0, ties)
    knobs = {"merge": "ties", "merge_knobs": {"density": 0.3}, "rate": 0.5}
    merged = served(bench, rounds=2, steps_per_round=2, **knobs)
    torch.testing.assert_close(merged, expected, **close)
    by_name = served(bench, rounds=2, steps_per_round=2, merge="weight_average")
    torch.testing.assert_close(by_name, served(bench, rounds=2, steps_per_round=2), **close)


def test_the_tasks_own_budget_is_shared_among_rounds(bench):
    """Six steps in four rounds: one, two, one, two, each on the batches after those before."""
    taken = []

    def noted(task, weights, *, steps, first, **how):
        taken.append((task, first, steps))
        return MadeUpBench.fine_tune(bench, task, weights, steps=steps, name="")

    bench.fine_tune = noted
    served(bench, rounds=4)
    pieces = [(first, steps) for task, first, steps in taken if task == "task1"]
    assert pieces == [(0, 1), (1, 2), (3, 1), (4, 2)]
    taken.clear()
    served(bench, rounds=2, epochs=3)  # an epoch has two steps
    assert [piece for task, *piece in taken if task == "task0"] == [[0, 6], [6, 6]]
    taken.clear()
    served(bench, rounds=9)  # more rounds than steps: some tune nothing
    assert len(taken) == 6 * len(TASKS)


def test_the_recipe_is_changed_by_what_is_set_alone(bench):
    given = []

    def noted(task, weights, *, steps, first, name, **how):
        given.append(how)
        return dict(weights)

    bench.fine_tune = noted
    served(bench, rounds=1)
    served(bench, rounds=1, schedule="recipe", rate=1e-3, shift=0, batch_size=8, weight_decay=0)
    assert given[0] == {"constant": True}
    changes = {"rate": 1e-3, "weight_decay": 0, "batch_size": 8, "shift": 0}
    assert given[-1] == {"constant": False, **changes}


def test_one_model_is_tuned_at_a_time(bench):
    tuned = []

    def noted(task, weights, **how):
        assert not any(ref() is not None for ref in tuned), "the last one's weights are still there"
        found = MadeUpBench.fine_tune(bench, task, weights, steps=1, name="")
        tuned.append(weakref.ref(found["proj"]))
        return found

    bench.fine_tune = noted
    served(bench, rounds=2)
    assert len(tuned) == 2 * len(TASKS)


def test_every_round_is_reported_once_and_the_last_is_what_is_served(bench):
    reports = []
    bench.report = lambda name, step, vector: reports.append((name, step, dict(vector)))
    merged = served(bench, rounds=3)
    assert [(name, step) for name, step, _ in reports] == [("rounds", n) for n in range(4)]
    assert not any(layer.any() for layer in reports[0][2].values())
    torch.testing.assert_close(reports[-1][2], merged, rtol=0, atol=0)


def test_one_task_is_its_fine_tuning_in_rounds_and_that_is_said(bench, caplog):
    merged = served(bench, 1, rounds=3, steps_per_round=2, rate=0.5)
    assert "atm with one task, task0, merges nothing: this is its fine-tuning" in caplog.text
    tuned = bench.fine_tune("task0", bench.pretrained, steps=6, name="", rate=0.5)
    for name in SHAPES:
        torch.testing.assert_close(merged[name], tuned[name] - bench.pretrained[name], **close)
    caplog.clear()
    served(bench, 2, rounds=1)
    assert "one task" not in caplog.text


def test_a_training_that_diverges_is_named(bench):
    bench.fine_tune = lambda task, weights, **how: {
        n: w * (torch.nan if task == "task1" else 1) for n, w in weights.items()
    }
    message = "fine-tuning task1 in round 1 of 2 diverged: .* Lower method.rate"
    with pytest.raises(ValueError, match=message):
        served(bench, rounds=2)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"start": "individual"}, "start=individual serves each task its own vector; atm needs"),
        ({"merge": "tsv_compress"}, "merge=tsv_compress serves each task its own vector"),
        ({"merge": "slerp"}, "slerp is for exactly 2 tasks, and the tasks here are 3"),
    ],
)
def test_what_serves_no_vector_for_all_is_refused_before_any_tuning(knobs, message, bench):
    bench.fine_tune = pytest.fail
    with pytest.raises(ValueError, match=message):
        methods.atm(random_vectors(3), bench=bench, **knobs)


def test_without_a_bench_it_is_said():
    with pytest.raises(ValueError, match="atm learns on images of the tasks and got none"):
        methods.atm(random_vectors(2), bench=None)
