"""Accuracy: how many images a model has right, and how that compares with another model."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Score:
    """Top-1 accuracy on one split of one task, in [0, 1], and the counts behind it."""

    accuracy: float
    correct: int
    total: int


def score(correct: np.ndarray) -> Score:
    """Return the score of per-image correctness: [images], bool."""
    hits = int(correct.sum())
    return Score(accuracy=hits / len(correct), correct=hits, total=len(correct))


def normalized_accuracy(accuracy: Mapping[str, float], individual: Mapping[str, float]) -> float:
    """Return the mean over tasks of accuracy / accuracy of the task's own fine-tuned model.

    This is not the ratio of the means. Raises ValueError if a fine-tuned model has accuracy 0.
    """
    for task in accuracy:
        if individual[task] == 0:
            raise ValueError(
                f"the fine-tuned model of {task} gets no image right, so accuracies cannot be "
                f"normalized by it. Is its checkpoint of this task and backbone?"
            )
    return sum(accuracy[task] / individual[task] for task in accuracy) / len(accuracy)
