"""Consensus merging by TALL masks: https://arxiv.org/abs/2405.07813."""

import logging
from collections.abc import Callable
from functools import cache

from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.entrywise.arithmetic import total
from tsv_bench.methods.knobs import check_whole
from tsv_bench.methods.masked.tall_mask import Lambdas, agreeing_sum, tall_mask, task_lambdas
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors, lazy_vectors
from tsv_bench.task_vectors.merge import merge_entries

__all__ = ["consensus_ta", "consensus_ties"]

log = logging.getLogger(__name__)


def consensus_ta(
    task_vectors: TaskVectors, *, mask_lambda: Lambdas = 0.4, min_tasks: int = 2
) -> ServedVectors:
    """Serve every task the summed entries that at least ``min_tasks`` TALL masks keep.

    ``mask_lambda`` is that of `tall_mask`: one number for all tasks, or one for each. Raises
    ValueError for a negative one, if tasks are missing, or if ``min_tasks`` is below 1.
    """
    return served_by_consensus(task_vectors, total, mask_lambda, min_tasks)


def consensus_ties(
    task_vectors: TaskVectors,
    *,
    density: float | int = 0.2,
    mask_lambda: Lambdas = 0.4,
    min_tasks: int = 2,
) -> ServedVectors:
    """Serve every task the TIES sum's entries that at least ``min_tasks`` TALL masks keep.

    ``density`` is the share of a task vector's entries that TIES' trimming keeps. Masks compare the
    untrimmed task vectors with the TIES sum. Raises ValueError as `consensus_ta`, and for a density
    outside (0, 1].
    """
    merge = agreeing_sum(lazy_vectors(task_vectors.values()), density)
    return served_by_consensus(task_vectors, merge, mask_lambda, min_tasks)


def served_by_consensus(
    task_vectors: TaskVectors,
    merge: Callable[[Tensor], Tensor],
    mask_lambda: Lambdas,
    min_tasks: int,
) -> ServedVectors:
    """Serve every task the merged entries that enough TALL masks keep.

    ``merge`` takes stacked deltas [tasks, ...] and merges entry by entry.
    """
    check_whole("min_tasks", min_tasks, "how many tasks must keep an entry for it to stay", 1)
    lambdas = task_lambdas(mask_lambda, task_vectors)
    if 0 < len(task_vectors) < min_tasks:
        _warn_that_nothing_is_left(len(task_vectors), min_tasks)

    def rule(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
        merged = merge(deltas)
        num_tasks = sum(
            tall_mask(delta, merged, own).int() for delta, own in zip(deltas, lambdas, strict=True)
        )
        return merged.masked_fill(num_tasks < min_tasks, 0)

    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), rule))


@cache  # warns once, though a method is called several times
def _warn_that_nothing_is_left(num_tasks: int, min_tasks: int) -> None:
    log.warning(
        "min_tasks=%d is more than there are tasks (%d): nothing is left of the merged vector, "
        "the pretrained model is served. Choose at most %d.",
        min_tasks,
        num_tasks,
        num_tasks,
    )
