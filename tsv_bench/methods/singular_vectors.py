"""Task singular vectors, TSV-Merge and TSV-Compress: https://arxiv.org/abs/2412.00081."""

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg import (
    check_polar,
    check_rank_fraction,
    kept_rank,
    polar_factor,
    singular_zero,
    truncated_svd,
)
from tsv_bench.task_vectors import TaskVectors, map_layers, merge_layers


def tsv_merge(
    task_vectors: TaskVectors, *, rank_fraction: float | int | None = None, polar: str = "svd"
) -> Mapping[str, Mapping[str, Tensor]]:
    """TSV-M, Algorithm 1: one merged vector, served to every task."""
    check_rank_fraction(rank_fraction)
    check_polar(polar)
    rule = partial(merge_matrix, rank_fraction=rank_fraction, polar=polar)
    return dict.fromkeys(task_vectors, merge_layers(task_vectors.values(), rule))


def merge_matrix(
    deltas: Float[Tensor, "tasks m n"], rank_fraction: float | int | None = None, polar: str = "svd"
) -> Float[Tensor, "m n"]:
    """Merge one layer's task matrices with the interference between tasks removed.

    Each task keeps its leading singular triplets. The kept singular vectors of all tasks,
    concatenated, are replaced by the nearest orthonormal set; the singular values stay.
    """
    num_tasks, m, n = deltas.shape
    rank = kept_rank(min(m, n), num_tasks, rank_fraction)

    u, s, vh = truncated_svd(deltas, rank)
    # Singular vectors of a zero singular value are arbitrary. In the concatenation they would
    # turn those of other tasks, so that a task that changed nothing would change the result.
    real = (s > singular_zero(s.dtype) * s[:, :1]).flatten()
    u = u.transpose(0, 1).reshape(m, num_tasks * rank)[:, real]  # tasks side by side
    vh = vh.reshape(num_tasks * rank, n)[real]
    return polar_factor(u, polar) * s.flatten()[real] @ polar_factor(vh, polar)


def tsv_compress(
    task_vectors: TaskVectors, *, rank_fraction: float | int | None = None
) -> Mapping[str, Mapping[str, Tensor]]:
    """TSV-C: each task is served its own task vector, every matrix of it at low rank.

    Every two-dimensional delta, those that merging only averages included; the others are whole.
    """
    check_rank_fraction(rank_fraction)
    rule = partial(compress_layer, num_tasks=len(task_vectors), rank_fraction=rank_fraction)
    return {task: map_layers(vector, rule) for task, vector in task_vectors.items()}


def compress_layer(
    name: str, delta: Float[Tensor, "..."], num_tasks: int, rank_fraction: float | int | None = None
) -> Float[Tensor, "..."]:
    """The best approximation of a matrix at the rank that each of ``num_tasks`` tasks keeps."""
    if delta.ndim != 2:
        return delta
    if not delta.any():
        return torch.zeros_like(delta)
    u, s, vh = truncated_svd(delta, kept_rank(min(delta.shape), num_tasks, rank_fraction))
    return u * s @ vh
