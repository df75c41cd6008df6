"""How a method does beyond the suite: on tasks that it did not merge, and on corrupted images.

Both are tested with the alpha that was chosen on validation images of the merged tasks, as they
are. Nothing is merged or chosen again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from tsv_bench import bars
from tsv_bench.benchmark.evaluate import Outcome, stage
from tsv_bench.benchmark.evaluator import Evaluator
from tsv_bench.benchmark.normalizer import serves_own_models
from tsv_bench.benchmark.route import route_images
from tsv_bench.benchmark.runs import Corrupted, Unseen
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.data import Split, Task
from tsv_bench.data.corruptions.corrupted import Corruptions, in_parts
from tsv_bench.methods.forms import Routed, Served, Shared
from tsv_bench.methods.method import Method
from tsv_bench.methods.served import form_by_trial
from tsv_bench.scores import normalized_accuracy, score


@dataclass(frozen=True, kw_only=True)
class Generalization:
    """What a Run says of it; None and {} where nothing was asked for."""

    unseen: Unseen | None = None
    corrupted: Corrupted | None = None
    bits: Mapping[str, np.ndarray] = field(default_factory=dict)  # by the names of `Run.scores`


def generalize(
    outcome: Outcome,
    evaluator: Evaluator,
    load: Callable[[Task, str], Split],
    *,
    tasks: Mapping[str, Task],
    unseen: Mapping[str, Task],
    corruptions: Corruptions | None,
    checkpoints: Mapping[str, Checkpoint],
    normalizer: Mapping[str, float] | None,
    own: Served | None = None,
) -> Generalization:
    """Test what an outcome serves on ``unseen`` tasks and on corrupted images of its ``tasks``.

    ``normalizer``: unseen task -> accuracy of its own model; None: these are served, as ``own``.
    ``outcome.seconds`` gets the time.
    """
    scores, damaged, bits = None, None, {}
    if unseen:
        with stage("unseen", outcome.seconds):
            hits = on_unseen(own or outcome.served, outcome.alpha, evaluator, unseen, load)
        scores = unseen_scores(unseen, hits, normalizer, checkpoints)
        bits |= hits
    if corruptions:
        testing = {name: load(task, "test") for name, task in tasks.items()}
        with stage("corrupted", outcome.seconds):
            found = on_corrupted(outcome.served, outcome.alpha, evaluator, testing, corruptions)
        damaged = Corrupted(
            severity=corruptions.severity,
            test={name: {t: score(hits) for t, hits in of.items()} for name, of in found.items()},
        )
        bits |= {
            Corrupted.key(name, task): hits
            for name, of_task in found.items()
            for task, hits in of_task.items()
        }
    return Generalization(unseen=scores, corrupted=damaged, bits=bits)


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
        checkpoints={
            task: {"sha256": checkpoints[task].sha256, "generation": checkpoints[task].generation}
            for task in tasks
        },
    )


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


def on_corrupted(
    served: Served,
    alpha: float,
    evaluator: Evaluator,
    testing: Mapping[str, Split],
    corruptions: Corruptions,
) -> dict[str, dict[str, np.ndarray]]:
    """Return corruption -> task -> which of its test images are right."""
    found: dict[str, dict[str, list]] = {
        name: {t: [] for t in testing} for name in corruptions.names
    }
    total = sum(len(split) for split in testing.values()) * len(found)
    with bars.bar(total=total, desc="corrupted images", unit="image", leave=False) as bar:

        def parts() -> Iterator[tuple[str, str, Split]]:
            # By task, so that what a task is served is loaded once.
            for task, split in testing.items():
                for name in corruptions.names:
                    for rows, pixels in in_parts(split.images.numpy(), name, corruptions.severity):
                        yield name, task, Split(torch.from_numpy(pixels), split.labels[rows])
                        bar.update(len(pixels))

        for name, task, hits in _correct(served, alpha, evaluator, parts()):
            found[name][task].append(hits)
    return {
        name: {task: np.concatenate(hits) for task, hits in of_task.items()}
        for name, of_task in found.items()
    }


def _correct(
    served: Served, alpha: float, evaluator: Evaluator, parts: Iterator[tuple[str, str, Split]]
) -> Iterator[tuple[str, str, np.ndarray]]:
    if isinstance(served, Routed):
        for name, task, split in parts:
            yield name, task, route_images(evaluator, served, {task: split}).correct[task]
        return
    names: list[str] = []

    def shown() -> Iterator[tuple[str, Split]]:
        for name, task, split in parts:
            names.append(name)
            yield task, split

    for task, hits in evaluator.correct_in_turn(served, alpha, shown()):
        yield names[-1], task, hits
