"""Which examples of each task a model got right, as its user or lm-evaluation-harness found."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

EXAMPLES = "examples"  # what tables call them, in place of images


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The examples of each task that a model got right, and what they are.

    ``correct``: task -> true or false for each example, in an order that all models share.
    ``data``: task -> what tells its examples from others, as a hash or a version; only answers to
    the same are compared. ``variants``: task -> how it was asked, as "acc, 5-shot", which stands
    below tables. ``evaluation``: how all of it was computed; its "precision" stands below tables
    where models differ in it.
    """

    correct: Mapping[str, Sequence[bool] | np.ndarray]
    data: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for a task without examples, and for an answer that is half right."""
        if not self.correct:
            raise ValueError("there is no task: correct= is empty.")
        for name in ("data", "variants"):
            if odd := set(getattr(self, name)) - set(self.correct):
                raise ValueError(f"{name} of {min(odd)!r}, which has no answers.")
        correct = {t: _bits(f"the answers of {t!r}", given) for t, given in self.correct.items()}
        object.__setattr__(self, "correct", correct)

    def __or__(self, other: "Answers") -> "Answers":
        """Return the answers of both, which are of different tasks and computed alike.

        As of each task's own fine-tuned model on its task. Raises ValueError if they are not.
        """
        if both := set(self.correct) & set(other.correct):
            raise ValueError(f"{min(both)!r} is in both: whose answers count?")
        if self.evaluation != other.evaluation:
            raise ValueError(
                f"not evaluated alike: {dict(self.evaluation)} and {dict(other.evaluation)}."
            )
        return Answers(
            correct={**self.correct, **other.correct},
            data={**self.data, **other.data},
            variants={**self.variants, **other.variants},
            evaluation=self.evaluation,
        )


def lm_eval_answers(
    results: Mapping[str, Any], metric: str = "acc", filter_name: str | None = None
) -> Answers:
    """Return the answers in what ``lm_eval.simple_evaluate(log_samples=True)`` returns.

    ``metric``: one that is 0 or 1 for each example, as acc, acc_norm or exact_match.
    ``filter_name``: of tasks with several filters, the one that counts. A task is told by what was
    asked in it, the examples before a question included. Raises ValueError if it is not in the
    results.
    """
    if not results or not results.get("samples"):
        raise ValueError(
            "the results have no samples: call lm_eval.simple_evaluate with log_samples=True."
        )
    correct, data, variants = {}, {}, {}
    for task, samples in results["samples"].items():
        samples = _of_filter(task, samples, filter_name)
        correct[task] = _bits(f"{metric} of {task!r}", [_metric(task, s, metric) for s in samples])
        asked = [[s["doc_hash"], s["prompt_hash"], s["target_hash"]] for s in samples]
        data[task] = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
        shots = results.get("n-shot", {}).get(task)
        variants[task] = metric if shots is None else f"{metric}, {shots}-shot"
        if filter_name:
            variants[task] += f", filter {filter_name}"
    dtype = str(results.get("config", {}).get("model_dtype", "unknown"))
    evaluation = {
        "by": f"lm_eval {results.get('lm_eval_version', 'unknown')}",
        "precision": dtype.removeprefix("torch."),
    }
    return Answers(correct=correct, data=data, variants=variants, evaluation=evaluation)


def _of_filter(
    task: str, samples: Sequence[Mapping[str, Any]], filter_name: str | None
) -> list[Mapping[str, Any]]:
    """Return the samples of one filter, in the order of the examples."""
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    if filter_name is None and len(filters) != 1 or filter_name and filter_name not in filters:
        raise ValueError(
            f"{task!r} has the filters {', '.join(filters)}: choose one by filter_name=, not "
            f"{filter_name!r}."
        )
    own = [s for s in samples if filter_name is None or s["filter"] == filter_name]
    return sorted(own, key=lambda sample: sample["doc_id"])


def _metric(task: str, sample: Mapping[str, Any], metric: str) -> Any:
    if metric not in sample:
        raise ValueError(
            f"{task!r} has no {metric!r}, but {', '.join(sample.get('metrics', ()))}: name one of "
            f"these as metric=."
        )
    return sample[metric]


def _bits(what: str, values: Any) -> np.ndarray:
    """Return [examples] as bool. Raises ValueError unless each value is right or wrong."""
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{what} are {array.dtype} of shape {array.shape}, not true or false for each of at "
            f"least one example."
        )
    if odd := [value for value in array.tolist() if value not in (0, 1)]:
        raise ValueError(
            f"{what} are not all 0 or 1, first {odd[0]!r}: Runs count right and wrong examples."
        )
    return array.astype(bool)
