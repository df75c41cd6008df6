"""Counts and accuracies of right images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Score:
    """Top-1 of one task on one split; accuracy in [0, 1]."""

    accuracy: float
    correct: int
    total: int


def score(correct: np.ndarray) -> Score:
    """Counts and accuracy, in [0, 1]."""
    hits = int(correct.sum())
    return Score(accuracy=hits / len(correct), correct=hits, total=len(correct))


def normalized_accuracy(accuracy: Mapping[str, float], individual: Mapping[str, float]) -> float:
    """Mean over tasks of accuracy over that of the task's own fine-tuned model.

    Not the ratio of the means. ValueError when an individual model is never right.
    """
    for task in accuracy:
        if individual[task] == 0:
            raise ValueError(
                f"the fine-tuned model of {task} gets no image right, so accuracies cannot be "
                f"normalized by it. Is its checkpoint of this task and backbone?"
            )
    return sum(accuracy[task] / individual[task] for task in accuracy) / len(accuracy)
