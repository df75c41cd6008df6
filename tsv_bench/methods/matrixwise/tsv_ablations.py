"""The two halves of TSV-Merge, each alone: https://arxiv.org/abs/2412.00081, Tables 4 to 6."""

import math
from collections.abc import Sequence

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
    """TSV-M without its polar factors: the sum of what each task keeps, served to every task.

    The paper's ablation of the removal of interference, Tables 4 to 6.
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
    """TSV-M at full rank: interference is removed, nothing is left out; served to every task.

    By `merge_full_rank` with the default routes, by singular vectors with the others; the same but
    for rounding. The paper's ablation of the low rank, Tables 4 to 6.
    """
    if (svd, polar) != ("gram", "eigen"):
        knobs = {"svd": svd, "polar": polar, "exclude": exclude, "split_qkv": split_qkv}
        return tsv_merge(task_vectors, rank_fraction=1.0, **knobs)
    matrices = Matrices.of(exclude, split_qkv)
    merged = merge_layers(task_vectors.values(), merge_full_rank, matrices=matrices)
    return dict.fromkeys(task_vectors, merged)


def sum_triplets(
    u: Float[Tensor, "tasks m k"], s: Float[Tensor, "tasks k"], vh: Float[Tensor, "tasks k n"]
) -> Float[Tensor, "m n"]:
    """The singular triplets of all tasks, concatenated and multiplied as they are."""
    m, n = u.shape[1], vh.shape[2]
    return (u * s[:, None]).transpose(0, 1).reshape(m, -1) @ vh.reshape(-1, n)


def merge_full_rank(deltas: Float[Tensor, "tasks m n"]) -> Float[Tensor, "m n"]:
    """TSV-M of one layer at full rank, without singular vectors where every delta has full rank.

    Of wide deltas, U_t is square then and the polar factor of all of them side by side is that
    over sqrt(T), that of the stacked V_t is V (V^T V)^(-1/2); so the deltas' sum times
    (T V^T V)^(-1/2) is left. Any orthonormal basis of a delta's rows serves as its V_t. Of square
    deltas V^T V is T times the identity: the mean is left.
    """
    if deltas.shape[1] > deltas.shape[2]:
        return merge_full_rank(deltas.mT).mT.contiguous()
    m, n = deltas.shape[1:]
    changed = [delta for delta in deltas if delta.any()]
    if len(changed) * m < n:
        return merge_matrix(deltas, rank_fraction=1.0)  # few tasks: that takes no long
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
