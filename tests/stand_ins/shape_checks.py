"""The run-time check of the shapes that jaxtyping annotates."""

from beartype import beartype


def check(function):
    """Check a function's arguments and result, unless it is made anew at each call of another.

    beartype would compile a check for each of them, which took longer than all calls together.
    """
    return function if "<locals>" in function.__qualname__ else beartype(function)
