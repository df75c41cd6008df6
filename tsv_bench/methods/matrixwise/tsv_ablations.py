"""The two halves of TSV-Merge, each alone: https://arxiv.org/abs/2412.00081, Tables 4 to 6."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.inverse_roots import orthonormal_rows, row_root, times_inverse_root
from tsv_bench.methods.matrixwise.tsv import merge_by_triplets, merge_matrix, tsv_merge
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import merge_layers

__all__ = ["tsv_interference_only", "tsv_low_rank"]


def tsv_low_rank(
    task_vectors: TaskVectors,
    *,
    rank_fraction: float | int | None = None,
    svd: str = "gram",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task TSV-M without its polar factors: the sum of the low-rank task matrices.

    The paper's ablation without the removal of interference, Tables 4 to 6. Knobs as in
    `tsv_merge`. Raises ValueError for those out of range.
    """
    return merge_by_triplets(task_vectors, rank_fraction, svd, exclude, split_qkv, sum_triplets)


def tsv_interference_only(
    task_vectors: TaskVectors,
    *,
    svd: str = "gram",
    polar: str = "eigen",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task TSV-M at full rank: interference is removed, no triplet is dropped.

    The paper's ablation without the low rank, Tables 4 to 6. The default routes use
    `merge_full_rank`, others singular vectors; they differ by rounding only. Knobs as in
    `tsv_merge`. Raises ValueError for those out of range.
    """
    if (svd, polar) != ("gram", "eigen"):
        knobs = {"svd": svd, "polar": polar, "exclude": exclude, "split_qkv": split_qkv}
        return tsv_merge(task_vectors, rank_fraction=1.0, **knobs)
    matrices = Matrices.of(exclude, split_qkv)
    merged = merge_layers(task_vectors.values(), merge_full_rank, matrices=matrices)
    return dict.fromkeys(task_vectors, merged)


def sum_triplets(
    u: Float[Tensor, "tasks m k"],
    s: Float[Tensor, "tasks k"],
    vh: Float[Tensor, "tasks k n"],
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "m n"]:
    """Return the sum over tasks of u s vh, in the ``dtype`` if one is given."""
    m, n = u.shape[1], vh.shape[2]
    dtype = s.dtype if dtype is None else dtype
    left = (u * s[:, None]).transpose(0, 1).reshape(m, -1)
    return left.to(dtype) @ vh.reshape(-1, n).to(dtype)


def merge_full_rank(deltas: Float[Tensor, "tasks m n"]) -> Float[Tensor, "m n"]:
    """Merge one layer by TSV-M at full rank, without singular vectors if all deltas have full rank.

    For T wide deltas of full rank each U_t is square, so the polar factor of [U_1 ... U_T] is that
    matrix / sqrt(T). The polar factor of the stacked V_t is V (V^T V)^(-1/2). Their product is the
    sum of the deltas times (T V^T V)^(-1/2), where V_t may be any orthonormal basis of the rows of
    delta t. For square deltas V^T V is T times the identity, and the product is the mean.
    """
    if deltas.shape[1] > deltas.shape[2]:
        return merge_full_rank(deltas.mT).mT.contiguous()
    m, n = deltas.shape[1:]
    changed = [delta for delta in deltas if delta.any()]
    if len(changed) * m < n:
        return merge_matrix(deltas, rank_fraction=1.0)  # few tasks: this is fast enough
    rows = deltas.new_empty(len(changed), m, n) if m < n else None
    for i, delta in enumerate(changed):
        root = row_root(delta)
        if root is None:
            return merge_matrix(deltas, rank_fraction=1.0)
        if rows is not None:
            rows[i] = orthonormal_rows(delta, root)
    total = deltas.sum(dim=0)
    if rows is not None:
        total = times_inverse_root(total, rows.flatten(0, 1)) * math.sqrt(len(changed))
    return (total / len(changed)).to(deltas.dtype)
