"""Centered arithmetic with rank-reduced task vectors (CART): https://arxiv.org/abs/2412.12153."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.svd import check_svd_route, truncated_svd
from tsv_bench.methods.knobs import check_not_negative
from tsv_bench.methods.ranks import check_rank_fraction, kept_rank
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import mean, merge_layers

__all__ = ["cart"]


def cart(
    task_vectors: TaskVectors,
    *,
    rank_fraction: float | int | None = 0.12,
    centered_scale: float | int = 2.0,
    svd: str = "gram",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task the mean plus each task's difference from it, at low rank and scaled.

    ``rank_fraction`` is the share of singular triplets that a task keeps of its difference,
    ``centered_scale`` the factor of the sum of differences. Layers that are no matrices are
    averaged; ``exclude`` and ``split_qkv`` as in `tsv_merge`. Raises ValueError for knobs out of
    range.
    """
    check_rank_fraction(rank_fraction)
    check_not_negative(
        "centered_scale", centered_scale,
        "the factor of what tasks keep of their differences from the mean",
    )  # fmt: skip
    check_svd_route(svd)
    matrices = Matrices.of(exclude, split_qkv)
    rule = partial(
        centered_sum, rank_fraction=rank_fraction, centered_scale=centered_scale, svd=svd
    )
    return dict.fromkeys(task_vectors, merge_layers(task_vectors.values(), rule, matrices=matrices))


def centered_sum(
    deltas: Float[Tensor, "tasks m n"],
    rank_fraction: float | int | None,
    centered_scale: float | int,
    svd: str = "gram",
) -> Float[Tensor, "m n"]:
    """Return the mean plus the scaled sum of the tasks' differences from it, each at low rank."""
    num_tasks, m, n = deltas.shape
    rank = kept_rank(min(m, n), num_tasks, rank_fraction)
    center = mean(deltas)
    kept = torch.zeros_like(center)
    for delta in deltas:  # one at a time, to save a second copy of all
        difference = delta - center
        if difference.any():
            u, s, vh = truncated_svd(difference, rank, svd)
            kept.addmm_(u * s, vh)
    return center.add_(kept, alpha=centered_scale)
