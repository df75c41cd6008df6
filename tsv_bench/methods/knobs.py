"""Checks of knobs, one function a kind. Every message says what was found, expected and meant.

A number is an int or a float that is finite; true and false are none, though Python counts them as
1 and 0. Each function raises ValueError if the value is not of its kind. ``meaning`` ends the
message and completes "it is ...".
"""

import math
from collections.abc import Collection, Sequence

DECIMALS = 9  # of a knob that count: 1 - 0.7 is 0.30000000000000004


def is_number(value: object) -> bool:
    """Return whether the value is a finite int or float, and not a bool."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def check_share(knob: str, value: object, meaning: str) -> None:
    """Raise ValueError unless the value is a number in (0, 1]."""
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(f"{knob}={value!r} is not in (0, 1]: it is {meaning}.")


def check_range(
    knob: str, value: object, lowest: float | int, highest: float | int, meaning: str
) -> None:
    """Raise ValueError unless the value is a number in [lowest, highest]."""
    if not is_number(value) or value < lowest or round(value, DECIMALS) > highest:
        raise ValueError(f"{knob}={value!r} is not in [{lowest}, {highest}]: it is {meaning}.")


def check_positive(knob: str, value: object, meaning: str) -> None:
    """Raise ValueError unless the value is a number above 0."""
    if not is_number(value) or value <= 0:
        raise ValueError(f"{knob}={value!r} is not a positive number: it is {meaning}.")


def check_not_negative(knob: str, value: object, meaning: str, whose: str = "") -> None:
    """Raise ValueError unless the value is a number from 0 on; ``whose`` follows it."""
    if not is_number(value) or value < 0:
        raise ValueError(f"{knob}={value!r}{whose} is not a number from 0 on: it is {meaning}.")


def check_whole(knob: str, value: object, meaning: str, lowest: int | None = None) -> None:
    """Raise ValueError unless the value is a whole number, from ``lowest`` on if that is given."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (lowest is not None and value < lowest):
        least = "" if lowest is None else f" from {lowest} on"
        raise ValueError(f"{knob}={value!r} is not a whole number{least}: it is {meaning}.")


def check_choice(knob: str, value: object, choices: Sequence[str], meaning: str) -> None:
    """Raise ValueError unless the value is one of the choices; ``meaning`` says what they are."""
    if value not in choices:
        raise ValueError(f"{knob}={value!r} is not {meaning}: {tuple(choices)}.")


def check_patterns(knob: str, value: object) -> None:
    """Raise ValueError unless the value is a list of patterns of parameter names."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not all(isinstance(pattern, str) for pattern in value):
        raise ValueError(
            f"{knob}={value!r} is not a list of patterns of parameter names, such as "
            f"['lm_head', 'visual.*.proj']."
        )


def check_switch(knob: str, value: object) -> None:
    """Raise ValueError unless the value is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{knob}={value!r} is neither true nor false.")


def check_num_tasks(method: str, wanted: int, tasks: Collection[str]) -> None:
    """Raise ValueError unless there are as many tasks as a method is for."""
    if len(tasks) != wanted:
        raise ValueError(
            f"{method} is for exactly {wanted} tasks, and the tasks here are {len(tasks)}: "
            f"{', '.join(tasks) or 'none'}. Name {wanted}, as in suite.tasks=[a,b] of tsv-bench "
            f"or finetuned='{{a: A, b: B}}' of tsv-merge, or take another method."
        )


def check_alphas(alphas: Sequence[float]) -> None:
    """Raise ValueError unless the candidates are distinct numbers above zero, one at least."""
    if alphas is None or isinstance(alphas, str | int | float | dict):
        raise ValueError(f"method.alphas={alphas!r} is not a list, as in method.alphas=[0.5,1.0].")
    if not alphas:
        raise ValueError("method.alphas is empty: give one alpha to fix it, or several to search.")
    for alpha in alphas:
        if not is_number(alpha) or alpha <= 0:
            raise ValueError(f"method.alphas has {alpha!r}; every alpha is a number above zero.")
    if len(set(alphas)) < len(alphas):
        raise ValueError(f"method.alphas has the same alpha twice: {list(alphas)}.")
