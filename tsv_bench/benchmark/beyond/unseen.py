"""Tests of tasks that were not merged, by the one model that a method serves to all."""

from collections.abc import Callable, Mapping

import numpy as np

from tsv_bench import bars
from tsv_bench.benchmark.beyond.records import Unseen
from tsv_bench.benchmark.evaluate import open_task_vectors
from tsv_bench.benchmark.evaluator import Evaluator
from tsv_bench.benchmark.normalizer import serves_own_models
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.data import Split, Task
from tsv_bench.methods.forms import Routed, Served, Shared
from tsv_bench.methods.method import Method
from tsv_bench.methods.served import form_by_trial, served_by
from tsv_bench.models import Backbone
from tsv_bench.scores import normalized_accuracy, score


def check_unseen(method: Method, tasks: Mapping[str, Task], unseen: Mapping[str, Task]) -> None:
    """Raise ValueError if there are unseen tasks and the method has no one model for all tasks.

    Before any work; of a method that sees data `check_shared` tells when it has served.
    """
    if unseen and not method.needs and not serves_own_models(method):
        _check_form(form_by_trial(method.by_default().serve, tasks), method.name, unseen)


def check_shared(served: Served, unseen: Mapping[str, Task]) -> None:
    """Raise ValueError if there are unseen tasks and what is served is not one vector for all."""
    if unseen:
        _check_form(type(served), served.name, unseen)


def _check_form(form: type[Served], name: str, unseen: Mapping[str, Task]) -> None:
    if not issubclass(form, Shared):
        what = (
            "sends images to experts of" if issubclass(form, Routed) else "has a model for each of"
        )
        raise ValueError(
            f"unseen=[{','.join(unseen)}] with method={name}, which {what} the merged tasks: it "
            f"has none for a task that it did not merge. Take a method that serves one model for "
            f"all, as tsv_merge, or unseen=[]."
        )


def own_models(
    method: Method, backbone: Backbone, checkpoints: Mapping[str, Checkpoint]
) -> Served | None:
    """Return the unseen tasks' own models, which only a method without merging serves."""
    if not checkpoints:
        return None
    return served_by(method.serve, open_task_vectors(backbone, checkpoints), method.name)


def on_unseen(
    served: Served,
    alpha: float,
    evaluator: Evaluator,
    unseen: Mapping[str, Task],
    load: Callable[[Task, str], Split],
) -> dict[str, np.ndarray]:
    """Return task -> which test images are right, of tasks that were not merged.

    ``served``: the one vector for all tasks, or each unseen task's own.
    """
    if not set(unseen) <= set(served):
        first = next(iter(served))
        vectors, like = (
            dict.fromkeys(unseen, of[first]) for of in (served.vectors, served.task_vectors)
        )
        served = Shared(vectors, like, served.name)
    splits = {name: load(task, "test") for name, task in unseen.items()}
    with bars.bar(total=len(splits), desc="unseen tasks", leave=False) as bar:
        return evaluator.correct(served, alpha, splits, bar.update)


def unseen_scores(
    tasks: Mapping[str, Task],
    correct: Mapping[str, np.ndarray],
    normalizer: Mapping[str, float] | None,
    checkpoints: Mapping[str, Checkpoint],
) -> Unseen:
    """Return a Run's record of unseen tasks; without a ``normalizer`` they are their own."""
    scores = {task: score(correct[task]) for task in tasks}
    accuracy = {task: of.accuracy for task, of in scores.items()}
    divisors = {task: (normalizer or accuracy)[task] for task in tasks}
    return Unseen(
        tasks={name: task.label for name, task in tasks.items()},
        test=scores,
        absolute=sum(accuracy.values()) / len(accuracy),
        normalized=normalized_accuracy(accuracy, divisors),
        normalizer=divisors,
        checkpoints={task: checkpoints[task].identity for task in tasks},
    )
