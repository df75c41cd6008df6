"""Counts and accuracies of right images."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Score:
    """Top-1 of one task on one split; accuracy in [0, 1]."""

    accuracy: float
    correct: int
    total: int
