"""TIES-Merging: https://arxiv.org/abs/2306.01708."""

from functools import partial

from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.knobs import check_choice, check_share
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors, lazy_vectors
from tsv_bench.task_vectors.merge import merge_entries
from tsv_bench.task_vectors.order_statistics import trim_thresholds

__all__ = ["ties"]

MERGES = ("mean", "sum")


def ties(task_vectors: TaskVectors, *, density: float | int, merge: str = "mean") -> ServedVectors:
    """Trim every task vector, elect a sign for every entry, merge what agrees; for all tasks.

    ``density`` is the share of a task vector's entries that trimming keeps, in (0, 1]. ``merge``
    says how agreeing entries become one: their "mean" (the paper's) or "sum". Raises ValueError for
    other values.
    """
    check_share("density", density, "the share of entries that trimming keeps")
    check_choice("merge", merge, MERGES, "a way to merge what agrees")
    # These take passes of their own: a threshold is that of a whole task vector.
    thresholds = trim_thresholds(lazy_vectors(task_vectors.values()), density)
    rule = partial(merge_agreeing, thresholds=thresholds, merge=merge)
    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), rule))


def merge_agreeing(
    deltas: Float[Tensor, "tasks ..."], thresholds: list[float], merge: str
) -> Float[Tensor, "..."]:
    """Merge one layer without entries below their task's threshold or against the elected sign.

    The elected sign is that of the sum of the entries that trimming kept. Entries that cancel
    exactly elect none and become zero.
    """
    column = deltas.new_tensor(thresholds).reshape(-1, *[1] * (deltas.ndim - 1))
    kept = deltas.masked_fill(deltas.abs() < column, 0)
    sign = kept.sum(dim=0).sign_()
    agreeing = kept.mul_(sign).clamp_(min=0)  # magnitudes; in place, as memory is the bottleneck
    merged = agreeing.sum(dim=0).mul_(sign)
    return merged if merge == "sum" else merged.div_(agreeing.sign_().sum(dim=0).clamp_(min=1))
