"""Consensus merging by TALL masks: https://arxiv.org/abs/2405.07813."""

import logging
import math
from collections.abc import Callable, Mapping
from functools import cache, partial

from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.methods.arithmetic import total
from tsv_bench.methods.shares import check_share
from tsv_bench.methods.sign_election import merge_agreeing, trim_thresholds
from tsv_bench.task_vectors import TaskVectors, merge_entries

log = logging.getLogger(__name__)


def consensus_ta(
    task_vectors: TaskVectors, *, mask_lambda: float | int, min_tasks: int
) -> Mapping[str, Mapping[str, Tensor]]:
    """Task Arithmetic without the entries that fewer than ``min_tasks`` tasks want, for all tasks.

    A task wants the entries of its TALL mask (`wanted`).
    """
    check_consensus(mask_lambda, min_tasks)
    return served_by_consensus(task_vectors, total, mask_lambda, min_tasks)


def consensus_ties(
    task_vectors: TaskVectors,
    *,
    density: float | int,
    mask_lambda: float | int,
    min_tasks: int,
) -> Mapping[str, Mapping[str, Tensor]]:
    """TIES (the sum of what agrees) without the entries that fewer than ``min_tasks`` tasks want.

    ``density`` is the share of a task vector's entries that TIES' trimming keeps; masks compare
    the untrimmed task vectors with what TIES makes of them.
    """
    check_consensus(mask_lambda, min_tasks)
    check_share("density", density, "that trimming keeps")
    # A pass of its own, as in TIES.
    thresholds = trim_thresholds(list(task_vectors.values()), density)
    merge = partial(merge_agreeing, thresholds=thresholds, merge="sum")
    return served_by_consensus(task_vectors, merge, mask_lambda, min_tasks)


def served_by_consensus(
    task_vectors: TaskVectors,
    merge: Callable[[Tensor], Tensor],
    mask_lambda: float | int,
    min_tasks: int,
) -> Mapping[str, Mapping[str, Tensor]]:
    """What ``merge`` makes of stacked deltas, where enough tasks want it."""
    if 0 < len(task_vectors) < min_tasks:
        _warn_that_nothing_is_left(len(task_vectors), min_tasks)

    def rule(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
        merged = merge(deltas)
        num_tasks = wanted(deltas, merged, mask_lambda).sum(dim=0)
        return merged.masked_fill(num_tasks < min_tasks, 0)

    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), rule))


def wanted(
    deltas: Float[Tensor, "tasks ..."], merged: Float[Tensor, "..."], mask_lambda: float | int
) -> Bool[Tensor, "tasks ..."]:
    """TALL masks: where a task is further from the pretrained than, ``mask_lambda`` times, from
    the merged model. No task wants what it did not change."""
    return deltas.abs() > (merged - deltas).abs_().mul_(mask_lambda)


def check_consensus(mask_lambda: float | int, min_tasks: int) -> None:
    """ValueError for knobs out of range."""
    if not isinstance(mask_lambda, int | float) or not 0 <= mask_lambda < math.inf:
        raise ValueError(
            f"mask_lambda={mask_lambda!r} is not a number from 0 on: a task wants an entry whose "
            f"magnitude is more than mask_lambda times its distance to the merged one."
        )
    if isinstance(min_tasks, bool) or not isinstance(min_tasks, int) or min_tasks < 1:
        raise ValueError(
            f"min_tasks={min_tasks!r} is not a whole number from 1 on: it is how many tasks must "
            f"want an entry so that it stays."
        )


@cache  # once, though a method is asked more often
def _warn_that_nothing_is_left(num_tasks: int, min_tasks: int) -> None:
    log.warning(
        "min_tasks=%d is more than there are tasks (%d): nothing is left of the merged vector, "
        "the pretrained model is served. Choose at most %d.",
        min_tasks,
        num_tasks,
        num_tasks,
    )
