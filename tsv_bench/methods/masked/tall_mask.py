"""TALL masks, which localize a task in a merged vector: https://arxiv.org/abs/2405.07813."""

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
Lambdas = float | int | Mapping[str, float | int]  # one for all tasks, or one each, by task


def tall_mask_ta(task_vectors: TaskVectors, *, mask_lambda: Lambdas) -> ServedVectors:
    """Each task is served its TALL mask of the sum of the task vectors: it must be known.

    ``mask_lambda`` as in `wanted`; one number, or one for each task.
    """
    lambdas = task_lambdas(mask_lambda, task_vectors)
    return serve_masked(task_vectors, total, [partial(wanted, mask_lambda=x) for x in lambdas])


def tall_mask_ties(
    task_vectors: TaskVectors, *, density: float | int, mask_lambda: Lambdas
) -> ServedVectors:
    """Each task is served its TALL mask of what TIES adds up: it must be known.

    ``density`` is the share of a task vector's entries that TIES' trimming keeps; masks compare
    the untrimmed task vectors with what TIES makes of them.
    """
    lambdas = task_lambdas(mask_lambda, task_vectors)
    merge = agreeing_sum(lazy_vectors(task_vectors.values()), density)
    return serve_masked(task_vectors, merge, [partial(wanted, mask_lambda=x) for x in lambdas])


def wanted(
    delta: Float[Tensor, "..."], merged: Float[Tensor, "..."], mask_lambda: float | int
) -> Bool[Tensor, "..."]:
    """A task's TALL mask: where it is further from the pretrained than, ``mask_lambda`` times,
    from the merged model. No task wants what it did not change."""
    return delta.abs() > (merged - delta).abs_().mul_(mask_lambda)


def agreeing_sum(
    vectors: Sequence[LazyMapping], density: float | int
) -> Callable[[Float[Tensor, "tasks ..."]], Float[Tensor, "..."]]:
    """The rule of TIES that sums what agrees; a pass of its own finds the thresholds."""
    check_share("density", density, "the share of entries that trimming keeps")
    return partial(merge_agreeing, thresholds=trim_thresholds(vectors, density), merge="sum")


def task_lambdas(mask_lambda: Lambdas, tasks: Mapping[str, object]) -> list[float | int]:
    """One for each task, in order. ValueError for one that is out of range or not given."""
    if isinstance(mask_lambda, Mapping):
        if odd := set(mask_lambda) ^ set(tasks):
            raise ValueError(
                f"mask_lambda names {len(odd)} tasks that there are not, or lacks them, first "
                f"{min(odd)!r}. Give one number for all, or one for each of: {', '.join(tasks)}."
            )
        for task in tasks:
            check_not_negative("mask_lambda", mask_lambda[task], MEANING, f" of {task}")
        return [mask_lambda[task] for task in tasks]
    check_not_negative("mask_lambda", mask_lambda, MEANING)
    return [mask_lambda] * len(tasks)
