"""Task singular vectors, TSV-Merge and TSV-Compress: https://arxiv.org/abs/2412.00081."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.factored import triplets_of_product
from tsv_bench.linalg.polar import check_polar, polar_factor, polar_product
from tsv_bench.linalg.svd import check_svd_route, truncated_svd
from tsv_bench.methods.matrixwise.decomposition import CompressedVector, Decomposition, is_real
from tsv_bench.methods.ranks import check_rank_fraction, kept_rank
from tsv_bench.task_vectors.lazy import (
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.matrices import EMBEDDINGS_AND_HEADS, Matrices
from tsv_bench.task_vectors.merge import factor_part, mean, zero_parts
from tsv_bench.task_vectors.streaming import IN_FLIGHT

__all__ = ["tsv_compress", "tsv_merge"]

THIN = 2048  # triplets, of all tasks together, up to which polar factors in float64 cost little
WORK = 4  # memory that a merge takes if all singular vectors are kept, in sizes of the deltas


def tsv_merge(
    task_vectors: TaskVectors,
    *,
    rank_fraction: float | int | None = None,
    svd: str = "gram",
    polar: str = "eigen",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task the TSV-M merge, Algorithm 1.

    ``rank_fraction`` is the share of singular triplets that each task keeps of a matrix; null is
    1 / number of tasks. ``svd`` and ``polar`` are routes of `truncated_svd` and `polar_factor`.
    Layers that are no matrices are averaged: `Matrices` decides by ``exclude`` (null: embeddings,
    output heads and text_projection) and ``split_qkv``. Raises ValueError for knobs out of range.
    """
    check_polar(polar)
    return merge_by_triplets(
        task_vectors, rank_fraction, svd, exclude, split_qkv, partial(merge_triplets, polar=polar)
    )


def merge_by_triplets(
    task_vectors: TaskVectors,
    rank_fraction: float | int | None,
    svd: str,
    exclude: Sequence[str] | None,
    split_qkv: bool,
    merge_one: Callable[..., Tensor],
) -> ServedVectors:
    """Serve every task one vector, its matrices merged from the tasks' singular triplets.

    ``merge_one`` takes u [tasks, m, k], s [tasks, k] and vh [tasks, k, n] of one matrix, and of
    triplets in float64 the type of the deltas, which is that of what it returns, [m, n]. Other
    layers are averaged. Raises ValueError for knobs out of range.
    """
    check_rank_fraction(rank_fraction)
    check_svd_route(svd)
    matrices = Matrices.of(exclude, split_qkv)
    vectors = lazy_vectors(task_vectors.values())

    def merge_factors(lefts: list[Tensor], rights: list[Tensor]) -> Float[Tensor, "m n"]:
        rank = kept_rank(min(len(lefts[0]), rights[0].shape[1]), len(vectors), rank_fraction)
        rank = min(rank, max(len(right) for right in rights))
        wide = ((a.double(), b.double()) for a, b in zip(lefts, rights, strict=True))
        found = zip(*(triplets_of_product(*own, rank) for own in wide), strict=True)
        return merge_one(*map(torch.stack, found), dtype=lefts[0].dtype)

    def parts(name: str) -> Sequence[Part]:
        shape = vectors[0].shape(name)
        if not matrices.is_matrix(name, shape):
            return blocks(vectors, name, mean)
        if (zeros := zero_parts(vectors, name)) is not None:
            return zeros
        if all(vector.factor_rank(name) is not None for vector in vectors):
            return [factor_part(vectors, name, matrices, merge_factors)]
        layer = Decomposition(vectors, name, len(vectors), matrices, rank_fraction, svd)

        def merge(read: list) -> Float[Tensor, "m n"]:
            triplets = zip(*(x.unbind(1) for x in layer.compute(read)), strict=True)
            return matrices.join(name, shape, [merge_one(*x) for x in triplets])

        entries = len(vectors) * shape.numel()
        alone = WORK * entries * layer.rank > IN_FLIGHT * layer.full_rank
        return [Part(name, 0, entries, layer.read, merge, alone)]

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def merge_matrix(
    deltas: Float[Tensor, "tasks m n"],
    rank_fraction: float | int | None = None,
    svd: str = "gram",
    polar: str = "eigen",
) -> Float[Tensor, "m n"]:
    """Merge one layer's task matrices without the interference between tasks."""
    num_tasks, m, n = deltas.shape
    rank = kept_rank(min(m, n), num_tasks, rank_fraction)
    return merge_triplets(*truncated_svd(deltas, rank, svd), polar)


def merge_triplets(
    u: Float[Tensor, "tasks m k"],
    s: Float[Tensor, "tasks k"],
    vh: Float[Tensor, "tasks k n"],
    polar: str = "eigen",
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "m n"]:
    """Merge the singular triplets that each task keeps of one matrix.

    The concatenated singular vectors of all tasks are replaced by the nearest orthonormal set. The
    singular values stay. ``dtype``: of the result, where thin triplets come in a wider one.
    """
    m, n = u.shape[1], vh.shape[2]
    dtype = s.dtype if dtype is None else dtype
    # Singular vectors of a zero singular value are arbitrary. Concatenated with those of other
    # tasks they would rotate these: a task that changed nothing would change the result.
    real = is_real(s.to(dtype)).flatten()
    u, s, vh = u.transpose(0, 1).reshape(m, -1), s.flatten(), vh.reshape(-1, n)  # side by side
    if not real.all():
        u, s, vh = u[:, real], s[real], vh[real]
    if s.dtype != dtype and len(s) <= THIN:
        # The concatenations' condition numbers multiply what rounding there was before.
        left, right = polar_factor(u, polar) * s, polar_factor(vh, polar)
        return left.to(dtype) @ right.to(dtype)
    return polar_product(u.to(dtype), s.to(dtype), vh.to(dtype), polar)


def tsv_compress(
    task_vectors: TaskVectors,
    *,
    rank_fraction: float | int | None = None,
    svd: str = "gram",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve each task its own task vector with every matrix at low rank: TSV-C.

    Knobs as in `tsv_merge`, but layers that are no matrices stay whole. ``exclude`` null excludes
    embeddings and output heads: text_projection is compressed, as in the paper. Raises ValueError
    for knobs out of range.
    """
    check_rank_fraction(rank_fraction)
    check_svd_route(svd)
    matrices = Matrices.of(exclude, split_qkv, EMBEDDINGS_AND_HEADS)
    return {
        task: CompressedVector(vector, len(task_vectors), matrices, rank_fraction, svd)
        for task, vector in task_vectors.items()
    }
