"""The settings of a merge that are words and numbers, checked before any file is opened."""

from collections.abc import Collection, Mapping, Sequence

from tsv_bench.methods.knobs import is_number

WRITES = ("model", "vector", "compressed", "lora")
PRECISIONS = ("float32", "bfloat16", "float16")  # of compressed files
WRITTEN = ("float32", "bfloat16", "float16")
LARGEST = 3.4028234663852886e38  # that float32 holds


def check_weights(weights: Mapping[str, object], tasks: Collection[str], rule: str) -> None:
    """Raise ValueError unless every task has a weight, a number, and together they weigh something.

    ``rule``: "relative" for weights of a mean, which are from 0 on.
    """
    if odd := sorted(set(weights) ^ set(tasks)):
        which = "no weight" if odd[0] in tasks else "a weight and no checkpoint"
        raise ValueError(
            f"weights: the task {odd[0]!r} has {which}. Give each of {', '.join(tasks)} one, as in "
            f"weights='{{{', '.join(f'{task}: 0.5' for task in tasks)}}}'."
        )
    for task, weight in weights.items():
        if not is_number(weight) or abs(weight) > LARGEST:
            raise ValueError(f"weights: {weight!r} of {task} is not a number that float32 holds.")
        if rule == "relative" and weight < 0:
            raise ValueError(
                f"weights: {weight!r} of {task} is below 0, and this method takes a mean, in which "
                f"weights are from 0 on. method=task_arithmetic sums: it takes any."
            )
    if not any(weights.values()):
        raise ValueError("weights: all are 0, which leaves nothing to merge. Give one above 0.")


def check_layer_alphas(patterns: Mapping[str, object], by_depth: Sequence[object]) -> None:
    """Raise ValueError unless all alphas of layers are numbers that float32 holds."""
    for name, alpha in [*patterns.items(), *(("alpha_by_depth", value) for value in by_depth)]:
        if not is_number(alpha) or abs(alpha) > LARGEST:
            raise ValueError(f"alpha: {alpha!r} of {name} is not a number that float32 holds.")


def check_mean(
    finetuned: Mapping[str, object], scales: Mapping[str, object], write: str = "model"
) -> None:
    """Raise ValueError for what makes no sense of a mean of models, without a pretrained one.

    ``scales``: the alphas that were given, by their names; None: it was not.
    """
    if len(finetuned) < 2:
        raise ValueError("a mean without pretrained= needs two models or more: add them.")
    for key, value in scales.items():
        if value is not None:
            raise ValueError(
                f"{key}= scales what is added to the pretrained model, which is not given: add "
                f"pretrained=, or leave {key}= out for the mean of the models."
            )
    if write != "model":
        raise ValueError(
            f"write={write} writes differences from the pretrained model, which is not given: add "
            f"pretrained=."
        )


def check_dtype(dtype: object) -> None:
    """Raise ValueError unless the type that is written is a usual one, or null."""
    if dtype is not None and dtype not in WRITTEN:
        raise ValueError(
            f"dtype={dtype!r} is not a type that is written: {', '.join(WRITTEN)}, or null for "
            f"that of the pretrained checkpoint."
        )


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
