"""Task singular vectors, TSV-Merge and TSV-Compress: https://arxiv.org/abs/2412.00081."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.linalg import (
    check_polar,
    check_svd_route,
    polar_product,
    singular_zero,
    truncated_svd,
)
from tsv_bench.matrices import EMBEDDINGS_AND_HEADS, NOT_MERGED, Matrices
from tsv_bench.ranks import check_rank_fraction, kept_rank
from tsv_bench.streaming import IN_FLIGHT, LazyVector, Part, blocks, shape_of, stacked, stream
from tsv_bench.task_vectors import TaskVectors, Triplets, mean, same_layers

WORK = 4  # times the deltas is what merging takes in memory, were all singular vectors kept


def tsv_merge(
    task_vectors: TaskVectors,
    *,
    rank_fraction: float | int | None = None,
    svd: str = "gram",
    polar: str = "eigen",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> Mapping[str, Mapping[str, Tensor]]:
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
) -> Mapping[str, Mapping[str, Tensor]]:
    """One vector for all: of each matrix what ``merge_one`` makes of the tasks' triplets."""
    check_rank_fraction(rank_fraction)
    check_svd_route(svd)
    matrices = Matrices(NOT_MERGED if exclude is None else exclude, split_qkv)
    vectors = list(task_vectors.values())

    def parts(name: str) -> Sequence[Part]:
        shape = shape_of(vectors[0], name)
        if not matrices.is_matrix(name, shape):
            return blocks(vectors, name, mean)
        layer = Decomposition(vectors, name, len(vectors), matrices, rank_fraction, svd)

        def merge(read: list) -> Float[Tensor, "m n"]:
            triplets = zip(*(x.unbind(1) for x in layer.compute(read)), strict=True)
            return matrices.join(name, shape, [merge_one(*x) for x in triplets])

        entries = len(vectors) * shape.numel()
        alone = WORK * entries * layer.rank > IN_FLIGHT * layer.full_rank
        return [Part(name, 0, entries, layer.read, merge, alone)]

    return dict.fromkeys(task_vectors, LazyVector(same_layers(vectors), parts))


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


def is_real(s: Float[Tensor, "tasks k"]) -> Bool[Tensor, "tasks k"]:
    """Whether a task's singular value is more than a rounding error of zero."""
    return s > singular_zero(s.dtype) * s[:, :1]


def tsv_compress(
    task_vectors: TaskVectors,
    *,
    rank_fraction: float | int | None = None,
    svd: str = "gram",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> Mapping[str, Mapping[str, Tensor]]:
    """TSV-C: each task is served its own task vector, every matrix of it at low rank.

    Matrices as `Matrices` has them; the others are whole. ``exclude`` null: embeddings and output
    heads; so text_projection, which merging averages, is compressed as in the paper.
    """
    check_rank_fraction(rank_fraction)
    check_svd_route(svd)
    matrices = Matrices(EMBEDDINGS_AND_HEADS if exclude is None else exclude, split_qkv)
    return {
        task: CompressedVector(vector, len(task_vectors), matrices, rank_fraction, svd)
        for task, vector in task_vectors.items()
    }


class CompressedVector(LazyVector):
    """A task vector with every matrix at the rank that each of ``num_tasks`` tasks keeps."""

    def __init__(
        self,
        vector: Mapping[str, Tensor],
        num_tasks: int,
        matrices: Matrices,
        rank_fraction: float | int | None,
        svd: str,
    ) -> None:
        self._vector, self._matrices = vector, matrices
        self._settings = num_tasks, matrices, rank_fraction, svd
        super().__init__(vector, self._product)

    @property
    def split_qkv(self) -> bool:
        return self._matrices.split_qkv

    def shape(self, name: str) -> torch.Size:
        return shape_of(self._vector, name)

    def factor_shapes(self, name: str) -> list[torch.Size] | None:
        """Of u, s and vh, with a leading axis where the layer is several matrices; None: whole."""
        shape = shape_of(self._vector, name)
        if not self._matrices.is_matrix(name, shape):
            return None
        pieces, m, n = self._matrices.split(name, torch.empty(shape, device="meta")).shape
        rank = self._layer(name).rank
        lead = [pieces] if pieces > 1 else []
        return [torch.Size([*lead, *size]) for size in ((m, rank), (rank,), (rank, n))]

    def factors(self, names: Iterable[str]) -> Iterator[tuple[str, list[Tensor]]]:
        """These layers' names and factors: u [pieces, m, k], s [pieces, k], vh [pieces, k, n]."""

        def parts(name: str) -> list[Part]:
            layer = self._layer(name)
            size = shape_of(self._vector, name).numel()
            return [Part(name, 0, size, layer.read, lambda r: [x[0] for x in layer.compute(r)])]

        return ((name, triplets) for name, _, triplets in stream(LazyVector(names, parts)))

    def _product(self, name: str) -> Sequence[Part]:
        shape = shape_of(self._vector, name)
        if not self._matrices.is_matrix(name, shape):
            return blocks([self._vector], name, mean)  # of one: itself
        layer = self._layer(name)

        def multiply(read: list) -> Tensor:
            u, s, vh = (x[0] for x in layer.compute(read))
            return self._matrices.join(name, shape, (u * s[:, None] @ vh).unbind())

        return [Part(name, 0, shape.numel(), layer.read, multiply)]

    def _layer(self, name: str) -> "Decomposition":
        return Decomposition([self._vector], name, *self._settings)


class Decomposition:
    """The singular triplets of one layer, remembered ones and new ones."""

    def __init__(
        self,
        vectors: Sequence[Mapping[str, Tensor]],
        name: str,
        num_tasks: int,
        matrices: Matrices,
        rank_fraction: float | int | None,
        svd: str,
    ) -> None:
        self.vectors, self.name, self.matrices, self.svd = vectors, name, matrices, svd
        m, n = matrices.split(name, torch.empty(shape_of(vectors[0], name), device="meta")).shape[
            1:
        ]
        self.full_rank = min(m, n)
        self.rank = kept_rank(self.full_rank, num_tasks, rank_fraction)
        self.kind = svd + ("-split" if matrices.split_qkv else "")

    def read(self) -> list[Triplets | Tensor]:
        """Of every task what is remembered, else the delta."""

        def remembered(vector: Mapping[str, Tensor]) -> Triplets | None:
            recall = getattr(vector, "recall", None)
            return recall(self.name, self.rank, self.kind) if recall else None

        return [remembered(vector) or vector[self.name] for vector in self.vectors]

    def compute(
        self, read: list[Triplets | Tensor]
    ) -> tuple[
        Float[Tensor, "tasks pieces m k"],
        Float[Tensor, "tasks pieces k"],
        Float[Tensor, "tasks pieces k n"],
    ]:
        """Triplets of all tasks; new ones are left to whoever keeps them."""
        new = [i for i, found in enumerate(read) if isinstance(found, Tensor)]
        if new:
            ahead = [getattr(self.vectors[i], "rank_ahead", lambda full: 0) for i in new]
            rank = max(self.rank, *(wanted(self.full_rank) for wanted in ahead))
            # A GPU is quickest with all at once; a CPU need not gather them first.
            at_once = len(new) if read[new[0]].is_cuda else 1
            groups = [new[i : i + at_once] for i in range(0, len(new), at_once)]
            # Not a list: each delta can go when its triplets are there.
            found = (self.decompose([read[i] for i in group], rank) for group in groups)
            for i, (u, s, vh) in zip(new, (f for group in found for f in group), strict=True):
                read[i] = u[..., : self.rank], s[..., : self.rank], vh[..., : self.rank, :]
                if keep := getattr(self.vectors[i], "keep", None):
                    keep(self.name, (u, s, vh), self.kind)
        # One after the other, and none kept twice: at full rank these are as large as the deltas.
        waiting = [list(parts) for parts in zip(*read, strict=True)]
        read.clear()  # whoever has read them holds on to the list
        stacks = []
        while waiting:
            parts = waiting.pop(0)
            stacks.append(stacked(parts, len(parts)))
        return tuple(stacks)

    def decompose(self, deltas: list[Float[Tensor, "..."]], rank: int) -> Iterator[Triplets]:
        """The triplets of each delta, with a leading axis for its pieces."""
        together = stacked(deltas, len(deltas)) if len(deltas) > 1 else deltas[0][None]
        pieces = self.matrices.split(self.name, together)
        if pieces.flatten()[:4096].any() or pieces.any():  # the second takes a while
            return zip(*truncated_svd(pieces, rank, self.svd), strict=True)
        *lead, m, n = pieces.shape
        sizes = ((m, rank), (rank,), (rank, n))
        return zip(*(pieces.new_zeros(*lead, *size) for size in sizes), strict=True)
