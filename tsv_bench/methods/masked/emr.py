"""EMR-Merging (elect, mask, rescale): https://arxiv.org/abs/2405.17461."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.methods.masked.masked_vector import serve_masked
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.streaming import stream_parts, watched

__all__ = ["emr"]


def emr(task_vectors: TaskVectors) -> ServedVectors:
    """Serve each task its mask of one unified vector, rescaled; the task must be known.

    A unified entry has the sign of the sum over tasks and the largest magnitude of those that agree
    with it. A task's mask keeps the entries that have its sign. The rescaling, one number a task,
    restores the mean magnitude of its task vector.
    """
    # This takes a pass of its own: a rescaling is that of a whole task vector.
    scales = rescalers(lazy_vectors(task_vectors.values()))
    return serve_masked(task_vectors, unified, [sign_mask] * len(scales), scales)


def unified(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
    """Return the sign of the sum times the largest magnitude that agrees; paper, Section 3.

    Entries that cancel exactly elect no sign and become zero.
    """
    sign = deltas.sum(dim=0).sign_()
    return (deltas * sign).amax(dim=0).clamp_(min=0).mul_(sign)


def sign_mask(delta: Float[Tensor, "..."], merged: Float[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Return where a task's delta has the sign of the merged entry."""
    return (delta.sign() == merged.sign()) & (merged != 0)


def rescalers(vectors: Sequence[LazyMapping]) -> list[float]:
    """Return for each task the sum of its magnitudes over that of its masked unified vector.

    Sums are over all layers. A task that changed nothing gets zero.
    """
    names = vectors[0].names if vectors else ()
    parts = [part for name in names for part in blocks(vectors, name, magnitudes)]
    own, kept = torch.zeros(2, len(vectors), dtype=torch.float64)
    for _, _, found in watched(stream_parts(parts), len(parts), "rescalers"):
        own += found[0]
        kept += found[1]
    return torch.where(kept > 0, own / kept, 0.0).tolist()


def magnitudes(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "2 tasks"]:
    """Return each task's sum of magnitudes, and that of the unified entries its mask keeps."""
    deltas = deltas.reshape(len(deltas), -1)
    merged = unified(deltas)
    agreeing = sign_mask(deltas, merged)
    own = deltas.abs().sum(dim=1, dtype=torch.float64)
    kept = (merged.abs() * agreeing).sum(dim=1, dtype=torch.float64)
    return torch.stack([own, kept]).cpu()
