"""Evaluate a method that was evaluated before on validation alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tsv_bench import bars
from tsv_bench.benchmark.evaluate import Accuracies, in_memory, left, means, unseen
from tsv_bench.benchmark.evaluator import Evaluator
from tsv_bench.benchmark.route import correct_of
from tsv_bench.benchmark.runs import Run
from tsv_bench.data import Split, Task
from tsv_bench.methods.method import Method
from tsv_bench.methods.served import served_by
from tsv_bench.scores import normalized_accuracy, score
from tsv_bench.task_vectors.task_vector import TaskVector


def validated(run: Run, *how: Any) -> Run:
    """Return a Run with its accuracies on validation; ``how``: what `validate` takes before alpha.

    Nothing else of it is changed.
    """
    knobs = {task: next(iter(of_task.values())) for task, of_task in run.task_knobs.items()}
    hits, normalized = validate(*how, run.alpha, knobs)
    val = {task: score(of_task) for task, of_task in hits.items()}
    return replace(run, val=val, normalized_val=normalized)


def validate(
    tasks: Mapping[str, Task],
    method: Method,
    vectors: Mapping[str, TaskVector],
    evaluator: Evaluator,
    load: Callable[[Task, str], Split],
    normalizer: Accuracies | None,
    seen_rows: Mapping[str, np.ndarray] | None,
    alpha: float,
    knobs: Mapping[str, float],
) -> tuple[dict[str, np.ndarray], float]:
    """Merge as before and evaluate on validation alone.

    ``alpha`` and ``knobs``, task -> value of an open knob, were chosen before. Returns task ->
    correct, bool [images], and the mean normalized accuracy.
    """
    validation = {name: load(task, "val") for name, task in tasks.items()}
    if method.knob_is_open:
        of_suite = method.choice.by == "suite"
        method = method.with_knob(next(iter(knobs.values())) if of_suite else knobs)
    served = in_memory(served_by(method.serve, vectors, method.name), method.label)
    with bars.bar(total=len(tasks), desc=f"{method.label}: validation", leave=False) as bar:
        hits = correct_of(evaluator, served, alpha, validation, bar.update)
    correct = left(unseen(hits, seen_rows))
    if normalizer is None:
        return correct, 1.0
    return correct, normalized_accuracy(means(correct), normalizer["val"])
