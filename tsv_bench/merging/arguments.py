"""The settings of a merge that are words and numbers, checked before any file is opened."""

WRITES = ("model", "vector", "compressed", "lora")
PRECISIONS = ("float32", "bfloat16", "float16")  # of compressed files
LARGEST = 3.4028234663852886e38  # that float32 holds


def check_arguments(alpha: object, write: object, precision: object, rank: object = None) -> None:
    """Raise ValueError unless alpha is a number that float32 holds and the others are known."""
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not number or not abs(alpha) <= LARGEST:
        raise ValueError(f"alpha={alpha!r} is not a number that float32 holds.")
    if write not in WRITES:
        raise ValueError(f"write={write!r} is unknown. There are: {', '.join(WRITES)}.")
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is unknown. There are: {', '.join(PRECISIONS)}.")
    whole = isinstance(rank, int) and not isinstance(rank, bool) and rank > 0
    if rank is not None and not whole:
        raise ValueError(f"rank={rank!r} is no rank of an adapter: a whole number from 1 on.")
    if rank is None and write == "lora":
        raise ValueError(
            "write=lora needs rank=, the most that the factors of a matrix may have, as in rank=16."
        )
