"""TALL masks, which find a task's entries in a merged vector: https://arxiv.org/abs/2405.07813."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.methods.entrywise.arithmetic import total
from tsv_bench.methods.entrywise.ties import merge_agreeing
from tsv_bench.methods.knobs import check_not_negative, check_share
from tsv_bench.methods.masked.masked_vector import serve_masked
from tsv_bench.task_vectors.lazy import LazyMapping, ServedVectors, TaskVectors, lazy_vectors
from tsv_bench.task_vectors.order_statistics import trim_thresholds

__all__ = ["tall_mask_ta", "tall_mask_ties"]

MEANING = "how many times its distance to the merged entry an entry that a task keeps exceeds"
Lambdas = float | int | Mapping[str, float | int]  # one for all tasks, or task -> its own


def tall_mask_ta(task_vectors: TaskVectors, *, mask_lambda: Lambdas = 0.4) -> ServedVectors:
    """Serve each task the sum of the task vectors under its TALL mask; the task must be known.

    ``mask_lambda`` is that of `tall_mask`: one number for all tasks, or one for each. Raises
    ValueError for a negative one, or if tasks are missing.
    """
    lambdas = task_lambdas(mask_lambda, task_vectors)
    return serve_masked(task_vectors, total, [partial(tall_mask, mask_lambda=x) for x in lambdas])


def tall_mask_ties(
    task_vectors: TaskVectors, *, density: float | int = 0.2, mask_lambda: Lambdas = 0.4
) -> ServedVectors:
    """Serve each task the TIES sum of the task vectors under its TALL mask; it must be known.

    ``density`` is the share of a task vector's entries that TIES' trimming keeps. Masks compare the
    untrimmed task vectors with the TIES sum. Raises ValueError as `tall_mask_ta`, and for a density
    outside (0, 1].
    """
    lambdas = task_lambdas(mask_lambda, task_vectors)
    merge = agreeing_sum(lazy_vectors(task_vectors.values()), density)
    return serve_masked(task_vectors, merge, [partial(tall_mask, mask_lambda=x) for x in lambdas])


def tall_mask(
    delta: Float[Tensor, "..."], merged: Float[Tensor, "..."], mask_lambda: float | int
) -> Bool[Tensor, "..."]:
    """Return where |delta| > mask_lambda |merged - delta|: a task's TALL mask.

    A task never keeps an entry that it did not change.
    """
    return delta.abs() > (merged - delta).abs_().mul_(mask_lambda)


def agreeing_sum(
    vectors: Sequence[LazyMapping], density: float | int
) -> Callable[[Float[Tensor, "tasks ..."]], Float[Tensor, "..."]]:
    """Return the TIES rule that sums agreeing entries; its thresholds take passes of their own."""
    check_share("density", density, "the share of entries that trimming keeps")
    thresholds = [0.0] * len(vectors) if density == 1 else trim_thresholds(vectors, density)
    return partial(merge_agreeing, thresholds=thresholds, merge="sum")


def task_lambdas(mask_lambda: Lambdas, tasks: Mapping[str, object]) -> list[float | int]:
    """Return one lambda for each task, in order.

    Raises ValueError if one is negative or no number, is missing, or is of no task.
    """
    if isinstance(mask_lambda, Mapping):
        for task, value in mask_lambda.items():
            check_not_negative("mask_lambda", value, MEANING, f" of {task}")
        if not mask_lambda:
            raise ValueError(
                "mask_lambda={} has no task. Give one number for all, or one for each."
            )
        if odd := set(mask_lambda) ^ set(tasks or mask_lambda):  # without tasks a knob is checked
            raise ValueError(
                f"mask_lambda names {len(odd)} tasks that there are not, or lacks them, first "
                f"{min(odd)!r}. Give one number for all, or one for each of: {', '.join(tasks)}."
            )
        return [mask_lambda[task] for task in tasks]
    check_not_negative("mask_lambda", mask_lambda, MEANING)
    return [mask_lambda] * len(tasks)
