"""Choice of alpha and of knobs on validation, by the papers' rule: the first maximum.

Alpha is chosen by mean normalized accuracy, and so is a knob of the whole suite; a knob that each
task has for itself, by that task's accuracy.
"""

from collections.abc import Callable, Mapping, Sequence


def choose_alpha(
    alphas: Sequence[float], score: Callable[[float], float], patience: int | None = None
) -> tuple[float, dict[float, float]]:
    """Return the alpha with the best score, the smallest on a tie, and alpha -> score.

    A single candidate is returned without evaluating it (the scores are empty), so methods that
    fix alpha pay for no validation.

    With ``patience`` the candidates are tried in ascending order until so many scores in a row lie
    below the best so far; only the scores up to there are returned. On a unimodal curve, plateaus
    included, early stopping never changes the choice: once the score drops it cannot recover, and
    a tie with the best so far counts as no drop. On a curve with a second, higher maximum beyond a
    valley of ``patience`` candidates or more, the first maximum is chosen. None never stops early,
    as in the paper.

    Raises ValueError unless ``patience`` is None or a whole number of at least 1.
    """
    if len(alphas) == 1:
        return alphas[0], {}
    check_patience(patience)
    scores: dict[float, float] = {}
    below = 0  # scores in a row below the best so far
    for alpha in sorted(alphas):
        scores[alpha] = score(alpha)
        below = below + 1 if scores[alpha] < max(scores.values()) else 0
        if below == patience:
            break
    return max(scores, key=scores.__getitem__), scores


def choose_by_task(
    candidates: Sequence[float], score: Callable[[float], Mapping[str, float]]
) -> dict[str, float]:
    """Return for each task the candidate with that task's best score, the smallest on a tie.

    ``score``: candidate -> task -> score.
    """
    scores = {candidate: score(candidate) for candidate in sorted(candidates)}
    tasks = next(iter(scores.values()))
    return {task: max(scores, key=lambda value: scores[value][task]) for task in tasks}


def check_patience(patience: int | None) -> None:
    """Raise ValueError unless ``patience`` is None or a whole number of at least 1."""
    if patience is None:
        return
    if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
        raise ValueError(
            f"evaluation.patience={patience!r} is not a whole number of at least 1. Leave it null "
            f"to evaluate every alpha."
        )
