"""The settings of a merge that are words and numbers, checked before any file is opened."""

WRITES = ("model", "vector", "compressed")
PRECISIONS = ("float32", "bfloat16", "float16")  # of compressed files
LARGEST = 3.4028234663852886e38  # that float32 holds


def check_arguments(alpha: object, write: object, precision: object) -> None:
    """Raise ValueError unless alpha is a number that float32 holds and the others are known."""
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not number or not abs(alpha) <= LARGEST:
        raise ValueError(f"alpha={alpha!r} is not a number that float32 holds.")
    if write not in WRITES:
        raise ValueError(f"write={write!r} is unknown. There are: {', '.join(WRITES)}.")
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is unknown. There are: {', '.join(PRECISIONS)}.")
