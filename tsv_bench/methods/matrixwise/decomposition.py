"""The singular triplets of a layer, recalled or computed, and vectors made of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.linalg.precision import singular_zero
from tsv_bench.linalg.svd import truncated_svd
from tsv_bench.methods.ranks import kept_rank
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    Part,
    Triplets,
    as_lazy,
    blocks,
    stacked,
)
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import mean
from tsv_bench.task_vectors.streaming import stream_parts


def is_real(s: Float[Tensor, "tasks k"]) -> Bool[Tensor, "tasks k"]:
    """Return whether each singular value is more than a rounding error of zero."""
    return s > singular_zero(s.dtype) * s[:, :1]


class CompressedVector(LazyVector):
    """A task vector with its matrices at the rank that each of ``num_tasks`` tasks keeps."""

    def __init__(
        self,
        vector: Mapping,
        num_tasks: int,
        matrices: Matrices,
        rank_fraction: float | int | None,
        svd: str,
    ) -> None:
        self._vector, self._matrices = as_lazy(vector), matrices
        self._settings = num_tasks, matrices, rank_fraction, svd
        super().__init__([self._vector], self._product)

    @property
    def split_qkv(self) -> bool:
        return self._matrices.split_qkv

    def factor_shapes(self, name: str) -> list[torch.Size] | None:
        """Return the shapes of u, s and vh, or None if the layer is stored whole.

        A layer that holds several matrices has an axis for them in front.
        """
        shape = self.shape(name)
        if not self._matrices.is_matrix(name, shape):
            return None
        pieces, m, n = self._matrices.split(name, torch.empty(shape, device="meta")).shape
        rank = self._layer(name).rank
        lead = [pieces] if pieces > 1 else []
        return [torch.Size([*lead, *size]) for size in ((m, rank), (rank,), (rank, n))]

    def factors(self, names: Iterable[str]) -> Iterator[tuple[str, list[Tensor]]]:
        """Yield each layer's name and u [pieces, m, k], s [pieces, k], vh [pieces, k, n]."""

        def parts(name: str) -> list[Part]:
            layer = self._layer(name)
            size = self.shape(name).numel()
            return [Part(name, 0, size, layer.read, lambda r: [x[0] for x in layer.compute(r)])]

        every = (part for name in names for part in parts(name))
        return ((name, triplets) for name, _, triplets in stream_parts(every))

    def _product(self, name: str) -> Sequence[Part]:
        shape = self.shape(name)
        if not self._matrices.is_matrix(name, shape) or self._vector.factor_rank(name) == 0:
            return blocks([self._vector], name, mean)  # of one: itself
        layer = self._layer(name)

        def multiply(read: list) -> Tensor:
            u, s, vh = (x[0] for x in layer.compute(read))
            return self._matrices.join(name, shape, (u * s[:, None] @ vh).unbind())

        return [Part(name, 0, shape.numel(), layer.read, multiply)]

    def _layer(self, name: str) -> "Decomposition":
        return Decomposition([self._vector], name, *self._settings)


class Decomposition:
    """The singular triplets of one layer of all tasks, recalled where kept, else computed."""

    def __init__(
        self,
        vectors: Sequence[LazyMapping],
        name: str,
        num_tasks: int,
        matrices: Matrices,
        rank_fraction: float | int | None,
        svd: str,
    ) -> None:
        self.vectors, self.name, self.matrices, self.svd = vectors, name, matrices, svd
        m, n = matrices.split(name, torch.empty(vectors[0].shape(name), device="meta")).shape[1:]
        self.full_rank = min(m, n)
        self.rank = kept_rank(self.full_rank, num_tasks, rank_fraction)
        known = [vector.factor_rank(name) for vector in vectors]
        if None not in known:  # no task has more singular values than it has factors
            self.rank = min(self.rank, max(*known, 1))
        self.kind = svd + ("-split" if matrices.split_qkv else "")

    def read(self) -> list[Triplets | Tensor]:
        """Return for each task its kept triplets, else its delta."""
        return [
            vector.recall(self.name, self.rank, self.kind) or vector[self.name]
            for vector in self.vectors
        ]

    def compute(
        self, read: list[Triplets | Tensor]
    ) -> tuple[
        Float[Tensor, "tasks pieces m k"],
        Float[Tensor, "tasks pieces k"],
        Float[Tensor, "tasks pieces k n"],
    ]:
        """Return the triplets of all tasks, and offer the new ones to the vectors to keep."""
        new = [i for i, found in enumerate(read) if isinstance(found, Tensor)]
        if new:
            rank = max(self.rank, *(self.vectors[i].rank_ahead(self.full_rank) for i in new))
            # A GPU is fastest with all at once; on a CPU there is no need to stack them first.
            at_once = len(new) if read[new[0]].is_cuda else 1
            groups = [new[i : i + at_once] for i in range(0, len(new), at_once)]
            # A generator, so that each delta is freed once its triplets are computed.
            found = (self.decompose([read[i] for i in group], rank) for group in groups)
            for i, (u, s, vh) in zip(new, (f for group in found for f in group), strict=True):
                read[i] = u[..., : self.rank], s[..., : self.rank], vh[..., : self.rank, :]
                self.vectors[i].keep(self.name, (u, s, vh), self.kind)
        # Stacked one by one, none kept twice: at full rank they are as large as the deltas.
        waiting = [list(parts) for parts in zip(*read, strict=True)]
        read.clear()  # the caller still holds the list
        stacks = []
        while waiting:
            parts = waiting.pop(0)
            stacks.append(stacked(parts, len(parts)))
        return tuple(stacks)

    def decompose(self, deltas: list[Float[Tensor, "..."]], rank: int) -> Iterator[Triplets]:
        """Return the triplets of each delta, with an axis for its pieces in front."""
        together = stacked(deltas, len(deltas)) if len(deltas) > 1 else deltas[0][None]
        pieces = self.matrices.split(self.name, together)
        if pieces.flatten()[:4096].any() or pieces.any():  # the whole check takes longer
            return zip(*truncated_svd(pieces, rank, self.svd), strict=True)
        *lead, m, n = pieces.shape
        sizes = ((m, rank), (rank,), (rank, n))
        return zip(*(pieces.new_zeros(*lead, *size) for size in sizes), strict=True)
