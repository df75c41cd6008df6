"""Choosing on validation, by the papers' rule: the first maximum.

Alpha by mean normalized accuracy, a knob that each task has for itself by that task's accuracy.
"""

from collections.abc import Callable, Mapping, Sequence


def choose_alpha(
    alphas: Sequence[float], score: Callable[[float], float], patience: int | None = None
) -> tuple[float, dict[float, float]]:
    """The alpha with the best score, the smallest one on a tie, and the score of each.

    A single candidate is returned without evaluating it (the scores are empty), so methods that
    fix alpha pay for no validation.

    With ``patience`` the search goes up the grid and stops after so many scores in a row that lie
    below the best so far; the scores are then those that were evaluated. On a unimodal curve (one
    that never falls before some alpha and never rises after it, plateaus anywhere) the choice is
    the same for every patience: a score below an earlier one can only come after the curve has
    fallen, from where it never rises again, so no later score exceeds the best so far, and one
    that equals it belongs to a larger alpha. A tie with the best is not below it: no plateau on
    the way up stops the search. On a curve with a second, higher top beyond a valley of
    ``patience`` candidates or more, the first top is chosen; None (no early stop) is the paper's.
    """
    if len(alphas) == 1:
        return alphas[0], {}
    check_patience(patience)
    scores: dict[float, float] = {}
    below = 0  # scores in a row
    for alpha in sorted(alphas):
        scores[alpha] = score(alpha)
        below = below + 1 if scores[alpha] < max(scores.values()) else 0
        if below == patience:
            break
    return max(scores, key=scores.__getitem__), scores


def choose_by_task(
    candidates: Sequence[float], score: Callable[[float], Mapping[str, float]]
) -> dict[str, float]:
    """For each task the candidate with its best score, the smallest one on a tie.

    ``score`` gives each task's with a candidate.
    """
    scores = {candidate: score(candidate) for candidate in sorted(candidates)}
    tasks = next(iter(scores.values()))
    return {task: max(scores, key=lambda value: scores[value][task]) for task in tasks}


def check_patience(patience: int | None) -> None:
    """ValueError unless it is a number of candidates, or None."""
    if patience is None:
        return
    if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
        raise ValueError(
            f"evaluation.patience={patience!r} is not a whole number of at least 1. Leave it null "
            f"to evaluate every alpha."
        )
