"""One cell of the benchmark: a method on a suite, from checkpoints to a Run."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from tsv_bench.checkpoint_vectors import check_finite, open_task_vector, pair_of
from tsv_bench.checkpoints import Checkpoint
from tsv_bench.data import Split, Task
from tsv_bench.evaluation import Evaluator, normalized_accuracy, score
from tsv_bench.factor_cache import FactorCache
from tsv_bench.method import Method
from tsv_bench.models import Backbone, zero_shot_head
from tsv_bench.scaling import choose_alpha
from tsv_bench.scores import Score
from tsv_bench.state_dicts import open_state_dict
from tsv_bench.streaming import gather, stream
from tsv_bench.task_vectors import TaskVector

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What evaluating a method gives, without the circumstances."""

    alpha: float
    curve: dict[float, float]  # alpha -> mean normalized accuracy on validation
    test: dict[str, np.ndarray]  # task -> correct, bool [images]
    val: dict[str, np.ndarray]  # at the chosen alpha; empty when it is fixed
    absolute: float
    normalized: float
    normalizer: dict[str, Score]
    seconds: dict[str, float] = field(default_factory=dict)


def open_task_vectors(
    backbone: Backbone,
    checkpoints: Mapping[str, Checkpoint],
    device: str = "cpu",
    factors: FactorCache | None = None,
) -> dict[str, TaskVector]:
    """Lazy task vectors of all checkpoints; ValueError for one damaged, not finite or foreign."""
    vectors = {}
    pretrained = backbone.pretrained
    for task, checkpoint in checkpoints.items():
        try:
            state = open_state_dict(checkpoint.path)
            pair = pair_of(backbone.fingerprint, checkpoint.sha256)
            vectors[task] = open_task_vector(pretrained, state, device, factors, pair)
            check_finite(state)
        except ValueError as error:
            raise ValueError(f"the checkpoint of {task} at {checkpoint.path}: {error}") from error
    return vectors


def computed(served: Mapping[str, Mapping], label: str) -> Mapping[str, Mapping]:
    """A vector served to all tasks is computed once; each its own stays lazy."""
    vectors = {id(vector): vector for vector in served.values()}
    if len(vectors) > 1:
        return served
    [vector] = vectors.values()
    with tqdm(total=len(vector), desc=f"{label}: layers", unit="layer", leave=False) as bar:
        rows = (found for found in stream(vector) if bar.update(found[1] == 0) or True)
        return dict.fromkeys(served, gather(rows))


# Scores of individual models that no file gives, by checkpoint hash and task fingerprint.
_individual: dict[tuple[str, str], dict[str, Score]] = {}


def individual_scores(
    evaluator: Evaluator,
    vector: TaskVector,
    task: Task,
    checkpoint: Checkpoint,
    load: Callable[[Task, str], Split],
) -> dict[str, Score]:
    """Accuracy of a task's own model on val and test: as its file says, else measured once."""
    if checkpoint.scores is not None:
        return checkpoint.scores
    key = (checkpoint.sha256, task.fingerprint)
    if key not in _individual:
        _individual[key] = {
            split: score(
                evaluator.correct({task.name: vector}, 1.0, {task.name: load(task, split)})[
                    task.name
                ]
            )
            for split in ("val", "test")
        }
    return _individual[key]


def evaluate_method(
    backbone: Backbone,
    tasks: Mapping[str, Task],
    method: Method,
    checkpoints: Mapping[str, Checkpoint],
    load: Callable[[Task, str], Split],
    device: str,
    factors: FactorCache | None = None,
) -> Outcome:
    """Merge, choose alpha on validation, evaluate once on test."""
    seconds: dict[str, float] = {}
    with stage("open", seconds):
        vectors = open_task_vectors(backbone, checkpoints, device, factors)
        heads = {name: zero_shot_head(backbone, task) for name, task in tasks.items()}
        evaluator = Evaluator(backbone, heads, device)
        individual = {
            name: individual_scores(evaluator, vectors[name], task, checkpoints[name], load)
            for name, task in tasks.items()
        }
    with stage("data", seconds):
        searched = len(method.alphas) > 1
        validation = {n: load(t, "val") for n, t in tasks.items()} if searched else {}
        testing = {name: load(task, "test") for name, task in tasks.items()}
    with stage("merge", seconds):
        served = computed(method.serve(vectors), method.label)

    val_normalizer = {name: scores["val"].accuracy for name, scores in individual.items()}
    correct: dict[float, dict[str, np.ndarray]] = {}

    def normalized_on_validation(alpha: float) -> float:
        correct[alpha] = evaluator.correct(served, alpha, validation, bar.update)
        return normalized_accuracy(means(correct[alpha]), val_normalizer)

    with stage("alpha", seconds):
        total = len(method.alphas) * len(validation)
        with tqdm(
            total=total, desc=f"{method.label}: alpha", leave=False, disable=not total
        ) as bar:
            alpha, curve = choose_alpha(method.alphas, normalized_on_validation)

    with stage("test", seconds):
        with tqdm(total=len(testing), desc=f"{method.label}: test", leave=False) as bar:
            test = evaluator.correct(served, alpha, testing, bar.update)

    normalizer = {name: scores["test"] for name, scores in individual.items()}
    accuracy = means(test)
    return Outcome(
        alpha=alpha,
        curve=curve,
        test=test,
        val=correct.get(alpha, {}),
        absolute=sum(accuracy.values()) / len(accuracy),
        normalized=normalized_accuracy(
            accuracy, {name: own.accuracy for name, own in normalizer.items()}
        ),
        normalizer=normalizer,
        seconds=seconds,
    )


def means(correct: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {task: float(hits.mean()) for task, hits in correct.items()}


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Record a stage's wall time in seconds."""
    started = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - started, 3)
