"""Task singular vectors, TSV-Merge and TSV-Compress: https://arxiv.org/abs/2412.00081."""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.polar import check_polar, polar_product
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
from tsv_bench.task_vectors.merge import mean
from tsv_bench.task_vectors.streaming import IN_FLIGHT

__all__ = ["tsv_compress", "tsv_merge"]

WORK = 4  # times the deltas is what merging takes in memory, were all singular vectors kept


def tsv_merge(
    task_vectors: TaskVectors,
    *,
    rank_fraction: float | int | None = None,
    svd: str = "gram",
    polar: str = "eigen",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """TSV-M, Algorithm 1: one merged vector, served to every task.

    Matrices as `Matrices` has them, the others averaged. ``exclude`` null: embeddings, output
    heads and text_projection.
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
    merge_one: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> ServedVectors:
    """One vector for all: of each matrix what ``merge_one`` makes of the tasks' triplets."""
    check_rank_fraction(rank_fraction)
    check_svd_route(svd)
    matrices = Matrices.of(exclude, split_qkv)
    vectors = lazy_vectors(task_vectors.values())

    def parts(name: str) -> Sequence[Part]:
        shape = vectors[0].shape(name)
        if not matrices.is_matrix(name, shape):
            return blocks(vectors, name, mean)
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
    """Merge one layer's task matrices with the interference between tasks removed."""
    num_tasks, m, n = deltas.shape
    rank = kept_rank(min(m, n), num_tasks, rank_fraction)
    return merge_triplets(*truncated_svd(deltas, rank, svd), polar)


def merge_triplets(
    u: Float[Tensor, "tasks m k"],
    s: Float[Tensor, "tasks k"],
    vh: Float[Tensor, "tasks k n"],
    polar: str = "eigen",
) -> Float[Tensor, "m n"]:
    """Merge the singular triplets that each task keeps of one matrix.

    The singular vectors of all tasks, concatenated, are replaced by the nearest orthonormal set;
    the singular values stay.
    """
    m, n = u.shape[1], vh.shape[2]
    # Singular vectors of a zero singular value are arbitrary. In the concatenation they would
    # turn those of other tasks, so that a task that changed nothing would change the result.
    real = is_real(s).flatten()
    u, s, vh = u.transpose(0, 1).reshape(m, -1), s.flatten(), vh.reshape(-1, n)  # side by side
    if not real.all():
        u, s, vh = u[:, real], s[real], vh[real]
    return polar_product(u, s, vh, polar)


def tsv_compress(
    task_vectors: TaskVectors,
    *,
    rank_fraction: float | int | None = None,
    svd: str = "gram",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """TSV-C: each task is served its own task vector, every matrix of it at low rank.

    Matrices as `Matrices` has them; the others are whole. ``exclude`` null: embeddings and output
    heads; so text_projection, which merging averages, is compressed as in the paper.
    """
    check_rank_fraction(rank_fraction)
    check_svd_route(svd)
    matrices = Matrices.of(exclude, split_qkv, EMBEDDINGS_AND_HEADS)
    return {
        task: CompressedVector(vector, len(task_vectors), matrices, rank_fraction, svd)
        for task, vector in task_vectors.items()
    }
