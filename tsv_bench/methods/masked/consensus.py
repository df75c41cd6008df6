"""Consensus merging by TALL masks: https://arxiv.org/abs/2405.07813."""

import logging
from collections.abc import Callable
from functools import cache

from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.entrywise.arithmetic import total
from tsv_bench.methods.knobs import check_whole
from tsv_bench.methods.masked.tall_mask import Lambdas, agreeing_sum, task_lambdas, wanted
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors, lazy_vectors
from tsv_bench.task_vectors.merge import merge_entries

__all__ = ["consensus_ta", "consensus_ties"]

log = logging.getLogger(__name__)


def consensus_ta(
    task_vectors: TaskVectors, *, mask_lambda: Lambdas, min_tasks: int
) -> ServedVectors:
    """Task Arithmetic without the entries that fewer than ``min_tasks`` tasks want, for all tasks.

    A task wants the entries of its TALL mask (`wanted`), of ``mask_lambda``: one number for all
    tasks, or one for each.
    """
    return served_by_consensus(task_vectors, total, mask_lambda, min_tasks)


def consensus_ties(
    task_vectors: TaskVectors,
    *,
    density: float | int,
    mask_lambda: Lambdas,
    min_tasks: int,
) -> ServedVectors:
    """TIES (the sum of what agrees) without the entries that fewer than ``min_tasks`` tasks want.

    ``density`` is the share of a task vector's entries that TIES' trimming keeps; masks compare
    the untrimmed task vectors with what TIES makes of them.
    """
    merge = agreeing_sum(lazy_vectors(task_vectors.values()), density)
    return served_by_consensus(task_vectors, merge, mask_lambda, min_tasks)


def served_by_consensus(
    task_vectors: TaskVectors,
    merge: Callable[[Tensor], Tensor],
    mask_lambda: Lambdas,
    min_tasks: int,
) -> ServedVectors:
    """What ``merge`` makes of stacked deltas, where enough tasks want it."""
    check_whole("min_tasks", min_tasks, "how many tasks must keep an entry for it to stay", 1)
    lambdas = task_lambdas(mask_lambda, task_vectors)
    if 0 < len(task_vectors) < min_tasks:
        _warn_that_nothing_is_left(len(task_vectors), min_tasks)

    def rule(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
        merged = merge(deltas)
        num_tasks = sum(
            wanted(delta, merged, own).int() for delta, own in zip(deltas, lambdas, strict=True)
        )
        return merged.masked_fill(num_tasks < min_tasks, 0)

    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), rule))


@cache  # once, though a method is asked more often
def _warn_that_nothing_is_left(num_tasks: int, min_tasks: int) -> None:
    log.warning(
        "min_tasks=%d is more than there are tasks (%d): nothing is left of the merged vector, "
        "the pretrained model is served. Choose at most %d.",
        min_tasks,
        num_tasks,
        num_tasks,
    )
