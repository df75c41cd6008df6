"""A scale for each layer of a kind, by its length beside those of the other blocks."""

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tsv_bench.task_vectors.lazy import LazyMapping, LazyVector, Part
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.streaming import stream_parts, watched

KEPT = 2**27  # entries of layers that wait to be served, at most: half a GB in float32
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a block, within a layer's name


def kind_of(name: str) -> str:
    """Return a layer's name without the number of its block."""
    return NUMBER.sub("*", name)


class BlockScaled(LazyVector):
    """A vector whose matrices are scaled by (length / mean length of their kind) ^ exponent.

    A kind is one matrix of every block. The lengths of all are known once all are computed, which
    happens when the first is wanted. Those for which there is room are kept until they are served;
    the others, and any that is wanted again, are computed again.
    """

    def __init__(
        self,
        like: Sequence[LazyMapping],
        parts: Callable[[str], Sequence[Part]],
        matrices: Matrices,
        exponent: float | int,
    ) -> None:
        super().__init__(like, self._scaled_parts)
        self._unscaled, self._matrices, self._exponent = parts, matrices, exponent
        self._scales: dict[str, float] = {}
        self._kept: dict[str, Tensor] = {}

    def _scaled_parts(self, name: str) -> Sequence[Part]:
        kind = kind_of(name)
        members = [other for other in self.names if kind_of(other) == kind]
        is_matrix = self._matrices.is_matrix(name, self.shape(name))
        if not is_matrix or len(members) == 1 or self._exponent == 0:
            return self._unscaled(name)
        if name not in self._scales:
            self._scales |= self._measured(members)
        [part] = self._unscaled(name)  # a matrix is one part
        scale = self._scales[name]

        def read() -> tuple[Tensor | None, object]:
            kept = self._kept.pop(name, None)
            return (part.read(), None) if kept is None else (None, kept)

        def compute(found: tuple[object, Tensor | None]) -> Tensor:
            material, kept = found
            return (part.compute(material) if kept is None else kept) * scale

        return [Part(name, 0, part.num_entries, read, compute, part.alone)]

    def _measured(self, members: Sequence[str]) -> dict[str, float]:
        """Return the scales of all matrices of a kind; keep those for which there is room."""
        parts = [part for name in members for part in self._unscaled(name)]
        lengths = {}
        for name, _, layer in watched(stream_parts(parts), len(parts), kind_of(members[0])):
            lengths[name] = float(torch.linalg.vector_norm(layer, dtype=torch.float64))
            if sum(kept.numel() for kept in self._kept.values()) + layer.numel() <= KEPT:
                self._kept[name] = layer
        mean = sum(lengths.values()) / len(lengths) or 1.0
        return {name: (length / mean) ** self._exponent for name, length in lengths.items()}
