"""Magnitude masking, the baseline of TALL masks: https://arxiv.org/abs/2405.07813."""

from functools import partial

from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.methods.entrywise.arithmetic import total
from tsv_bench.methods.knobs import check_share
from tsv_bench.methods.masked.masked_vector import serve_masked
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors, lazy_vectors
from tsv_bench.task_vectors.order_statistics import trim_thresholds

__all__ = ["magnitude_mask"]


def magnitude_mask(task_vectors: TaskVectors, *, density: float | int = 0.1) -> ServedVectors:
    """Serve each task the sum of the task vectors where its own is large; the task must be known.

    ``density`` is the share of a whole task vector's entries that its mask keeps, the largest ones.
    Raises ValueError for a density outside (0, 1].
    """
    check_share("density", density, "the share of entries that a mask keeps")
    # These take passes of their own: a threshold is that of a whole task vector.
    thresholds = trim_thresholds(lazy_vectors(task_vectors.values()), density)
    return serve_masked(task_vectors, total, [partial(is_large, threshold=x) for x in thresholds])


def is_large(
    delta: Float[Tensor, "..."], merged: Float[Tensor, "..."], threshold: float
) -> Bool[Tensor, "..."]:
    """Return where a task's delta reaches its threshold and is not zero."""
    magnitudes = delta.abs()
    return (magnitudes >= threshold) & (magnitudes > 0)
