"""Choosing alpha on validation, by the paper's rule: mean normalized accuracy, first maximum."""

import math
from collections.abc import Callable, Sequence


def choose_alpha(
    alphas: Sequence[float], score: Callable[[float], float]
) -> tuple[float, dict[float, float]]:
    """The alpha with the best score, the smallest one on a tie, and the score of each.

    A single candidate is returned without evaluating it (the scores are empty), so methods that
    fix alpha pay for no validation.
    """
    if len(alphas) == 1:
        return alphas[0], {}
    scores = {alpha: score(alpha) for alpha in sorted(alphas)}
    return max(scores, key=scores.__getitem__), scores


def check_alphas(alphas: Sequence[float]) -> None:
    """ValueError unless the candidates are distinct finite numbers above zero."""
    if not alphas:
        raise ValueError("method.alphas is empty: give one alpha to fix it, or several to search.")
    for alpha in alphas:
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        if not number or not math.isfinite(alpha) or alpha <= 0:
            raise ValueError(f"method.alphas has {alpha!r}; every alpha is a number above zero.")
    if len(set(alphas)) < len(alphas):
        raise ValueError(f"method.alphas has the same alpha twice: {list(alphas)}.")
