"""Checks that knobs of several methods share."""

import math
from collections.abc import Sequence


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


def check_share(knob: str, share: float | int, meaning: str) -> None:
    """ValueError for a share outside (0, 1]."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(
            f"{knob}={share!r} is not in (0, 1]: it is the share of entries {meaning}."
        )
