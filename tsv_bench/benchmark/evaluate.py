"""Evaluate a method on a suite: merge, choose alpha on validation, evaluate once on test."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from tsv_bench import bars
from tsv_bench.benchmark.alphas import choose_alpha, choose_by_task
from tsv_bench.benchmark.evaluator import Evaluator
from tsv_bench.benchmark.route import Routes, route_images
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.checkpoints.image_tower import image_tower
from tsv_bench.data import Split, Task
from tsv_bench.methods.forms import Routed, Served, Shared
from tsv_bench.methods.method import Method
from tsv_bench.methods.served import served_by
from tsv_bench.models import Backbone
from tsv_bench.scores import normalized_accuracy
from tsv_bench.state_dicts.entries.quantized import check_integers, check_unscaled
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.inputs import check_changes
from tsv_bench.state_dicts.integrity import check_finite
from tsv_bench.state_dicts.low_rank import is_compressed
from tsv_bench.state_dicts.masked import is_masked
from tsv_bench.state_dicts.open_vectors import cache_key, open_task_vector
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.task_vectors.streaming import observer
from tsv_bench.task_vectors.task_vector import TaskVector

Accuracies = Mapping[str, Mapping[str, float]]  # split -> task -> accuracy


@dataclass
class Outcome:
    """The result of evaluating a method; a Run adds what it was computed from and where."""

    alpha: float
    curve: dict[float, float]  # alpha -> mean normalized accuracy on validation; {} if fixed
    test: dict[str, np.ndarray]  # task -> correct, bool [images]
    val: dict[str, np.ndarray]  # the same at the chosen alpha; {} if alpha is fixed
    absolute: float  # mean over tasks of test accuracy, in [0, 1]
    normalized: float  # mean over tasks of test accuracy / normalizer
    normalizer: dict[str, float]  # task -> test accuracy of its own fine-tuned model
    served: Served  # task -> the vector it was served
    seconds: dict[str, float] = field(default_factory=dict)  # stage -> wall time
    stored_bytes: int | None = None  # beside the pretrained backbone, of all tasks together
    task_known: bool = False  # whether each task is served its own vector
    task_knobs: dict[str, dict[str, float]] = field(default_factory=dict)  # chosen on validation
    routes: Routes | None = None  # of test images, if a router chooses experts


def open_task_vectors(
    backbone: Backbone,
    checkpoints: Mapping[str, Checkpoint],
    device: str = "cpu",
    factors: FactorCache | None = None,
) -> dict[str, TaskVector]:
    """Return the lazy task vectors of all checkpoints, each read once to check its values.

    Raises ValueError that names the task if a checkpoint is damaged, not finite or of another
    backbone.
    """
    vectors = {}
    pretrained = backbone.pretrained
    for task, checkpoint in checkpoints.items():
        try:
            file = open_state_dict(checkpoint.path)
            state = image_tower(file, pretrained)
            if not (is_compressed(file) or is_masked(file)):
                check_unscaled(file)
                check_integers(pretrained, {task: state})
            pair = cache_key(backbone.fingerprint, checkpoint.sha256)
            vectors[task] = open_task_vector(pretrained, state, device, factors, pair)
            check_finite(state)
        except ValueError as error:
            raise ValueError(f"the checkpoint of {task} at {checkpoint.path}: {error}") from error
    check_changes(vectors, f"the pretrained {backbone.name}")
    return vectors


def in_memory(served: Served, label: str) -> Served:
    """Compute what all tasks share (a merged vector, or one and bit masks), with a progress bar.

    Vectors that each task has for itself stay lazy.
    """
    total = len(next(iter(served.values())))
    token = observer.set(lambda s, n, what: bars.bar(s, total=n, desc=what, leave=False, delay=2))
    try:
        with bars.bar(total=total, desc=f"{label}: layers", unit="layer", leave=False) as bar:
            return served.in_memory(bar.update)
    finally:
        observer.reset(token)


def evaluate_method(
    tasks: Mapping[str, Task],
    method: Method,
    vectors: Mapping[str, TaskVector],
    evaluator: Evaluator,
    load: Callable[[Task, str], Split],
    normalizer: Accuracies | None,
    patience: int | None = None,
    seen_rows: Mapping[str, np.ndarray] | None = None,
    check: Callable[[Served], object] = lambda served: None,
) -> Outcome:
    """Merge, choose alpha on validation, evaluate once on test.

    ``load`` returns a task's images of a split. ``normalizer``: the accuracies by which others are
    divided; None if the method serves the individual models themselves, at a fixed alpha: these
    are evaluated on validation too, to normalize others. ``patience``: see `choose_alpha`.
    ``seen_rows``: task -> rows of validation that the method saw, so that they choose nothing.
    ``check`` may refuse what is served before it is evaluated.
    """
    seconds: dict[str, float] = {}
    with stage("data", seconds):
        validated = len(method.alphas) > 1 or normalizer is None or method.knob_is_open
        validation = {n: load(t, "val") for n, t in tasks.items()} if validated else {}
        testing = {name: load(task, "test") for name, task in tasks.items()}
    task_values: dict[str, float] = {}
    if method.knob_is_open:
        with stage("knobs", seconds):
            value = choose_knob(method, vectors, evaluator, validation, normalizer, seen_rows)
            task_values = value if isinstance(value, dict) else dict.fromkeys(tasks, value)
            method = method.with_knob(value)
    with stage("merge", seconds):
        served = served_by(method.serve, vectors, method.name)
        if isinstance(served, Routed) and method.alphas != [1.0]:
            raise ValueError(
                f"{method.name} sends images to experts by a router, which are for one scale: its "
                f"alphas are {method.alphas} and must be [1.0]. Scale inside the method."
            )
        check(served)
        served = in_memory(served, method.label)
        stored = served.stored_bytes()

    correct: dict[float, dict[str, np.ndarray]] = {}

    def validate(alpha: float) -> dict[str, float]:
        hits = evaluator.correct(served, alpha, validation, bar.update)
        correct[alpha] = unseen(hits, seen_rows)
        return means(correct[alpha])

    with stage("alpha", seconds):
        total = len(method.alphas) * len(validation)
        with bars.bar(
            total=total, desc=f"{method.label}: alpha", leave=False, disable=not total
        ) as bar:
            if normalizer is None:
                [alpha], curve = method.alphas, {}
                own = {"val": validate(alpha)}
            else:
                own = normalizer
                alpha, curve = choose_alpha(
                    method.alphas, lambda a: normalized_accuracy(validate(a), own["val"]), patience
                )

    before = served.seconds
    with stage("test", seconds):
        with bars.bar(total=len(testing), desc=f"{method.label}: test", leave=False) as bar:
            if isinstance(served, Routed):
                routes = route_images(evaluator, served, testing, bar.update)
                test = routes.correct
            else:
                routes, test = None, evaluator.correct(served, alpha, testing, bar.update)

    # A vector that a task has for itself was computed during the test; its time counts as merging.
    computing = served.seconds - before
    seconds["merge"] = round(seconds["merge"] + computing, 3)
    seconds["test"] = round(seconds["test"] - computing, 3)
    accuracy = means(test)
    divisors = own.get("test", accuracy)
    return Outcome(
        alpha=alpha,
        curve=curve,
        test=test,
        val=correct.get(alpha, {}),
        absolute=sum(accuracy.values()) / len(accuracy),
        normalized=normalized_accuracy(accuracy, divisors),
        normalizer={name: divisors[name] for name in tasks},
        served=served,
        seconds=seconds,
        stored_bytes=stored,
        task_known=not isinstance(served, Shared | Routed),
        routes=routes,
        task_knobs={task: {method.choice.knob: value} for task, value in task_values.items()},
    )


def choose_knob(
    method: Method,
    vectors: Mapping[str, TaskVector],
    evaluator: Evaluator,
    validation: Mapping[str, Split],
    normalizer: Accuracies | None,
    seen_rows: Mapping[str, np.ndarray] | None = None,
) -> float | dict[str, float]:
    """Return the value of the method's open knob, or task -> value, as its choice says.

    By accuracy on validation at alpha 1: of each task, or the mean of the normalized ones.
    """
    choice = method.choice
    total = len(choice.candidates) * len(validation)
    with bars.bar(total=total, desc=f"{method.label}: {choice.knob}", leave=False) as bar:

        def score(value: float) -> dict[str, float]:
            serve = partial(choice.serve, **{choice.knob: value})
            served = in_memory(served_by(serve, vectors, method.name), method.label)
            return means(unseen(evaluator.correct(served, 1.0, validation, bar.update), seen_rows))

        if choice.by == "task":
            return choose_by_task(choice.candidates, score)
        own = normalizer["val"]
        return choose_alpha(choice.candidates, lambda v: normalized_accuracy(score(v), own))[0]


def unseen(
    correct: Mapping[str, np.ndarray], seen_rows: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Return the correctness of the images that a method did not see."""
    return {
        task: np.delete(hits, (seen_rows or {}).get(task, [])) for task, hits in correct.items()
    }


def means(correct: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return task -> accuracy, in [0, 1]."""
    return {task: float(hits.mean()) for task, hits in correct.items()}


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Record a stage's wall time in ``seconds``."""
    started = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - started, 3)
