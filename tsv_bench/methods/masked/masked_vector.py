"""Masks of one merged vector: each task is served the entries that its mask keeps.

For TALL masks (https://arxiv.org/abs/2405.07813), magnitude masks and EMR-Merging.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.task_vectors.bits import pack_bits, unpack_bits
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    Part,
    TaskVectors,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.merge import merge_entries
from tsv_bench.task_vectors.streaming import stream_parts

# Maps a task's delta and the merged one to whether the task keeps the merged entry.
Keep = Callable[[Float[Tensor, "..."], Float[Tensor, "..."]], Bool[Tensor, "..."]]


@dataclass(frozen=True)
class Masks:
    """How to merge the task vectors, and which merged entries each task keeps."""

    vectors: Sequence[LazyMapping]
    merge: Callable[[Float[Tensor, "tasks ..."]], Float[Tensor, "..."]]
    keeps: Sequence[Keep]  # one a task

    @property
    def names(self) -> list[str]:
        return list(self.vectors[0].names) if self.vectors else []

    @property
    def merged(self) -> LazyVector:
        """The vector that all tasks share."""
        return merge_entries(self.vectors, self.merge)

    def parts(self, name: str, pack: bool) -> list[Part]:
        """Return parts that compute merged rows and their masks [tasks, ...].

        With ``pack`` the masks are bits, [tasks, bytes].
        """

        def both(deltas: Float[Tensor, "tasks ..."]) -> tuple[Tensor, Tensor]:
            merged = self.merge(deltas)
            pairs = zip(self.keeps, deltas, strict=True)
            kept = torch.stack([keep(delta, merged) for keep, delta in pairs])
            return merged, pack_bits(kept.reshape(len(kept), -1)) if pack else kept

        return blocks(self.vectors, name, both, multiple=8)


class MaskedVector(LazyVector):
    """The merged vector under one task's mask, times ``scale``."""

    def __init__(self, masks: Masks, index: int, scale: float = 1.0) -> None:
        self.masks, self.index, self.scale = masks, index, scale
        super().__init__(masks.vectors, self._parts)

    def _parts(self, name: str) -> list[Part]:
        masks, index, scale = self.masks, self.index, self.scale

        def rule(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
            merged = masks.merge(deltas)
            return merged.mul_(masks.keeps[index](deltas[index], merged)).mul_(scale)

        return blocks(masks.vectors, name, rule)


class PackedVector(LazyMapping):
    """The same in memory: one task's bits, and the merged vector that all tasks share."""

    reads_rows = False

    def __init__(
        self, shared: Mapping[str, Tensor], bits: Mapping[str, Tensor], scale: float
    ) -> None:
        self.shared, self.bits, self.scale = shared, bits, scale

    @property
    def names(self) -> Collection[str]:
        return self.shared.keys()

    def rows(self, name: str, start: int, stop: int) -> Float[Tensor, "..."]:
        layer = self[name]
        return layer[start:stop] if layer.ndim else layer

    def __getitem__(self, name: str) -> Float[Tensor, "..."]:
        merged = self.shared[name]
        kept = unpack_bits(self.bits[name], merged.numel()).reshape(merged.shape)
        return merged * kept * self.scale

    def shape(self, name: str) -> torch.Size:
        return self.shared[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self.shared[name].dtype


def serve_masked(
    task_vectors: TaskVectors,
    merge: Callable[[Float[Tensor, "tasks ..."]], Float[Tensor, "..."]],
    keeps: Sequence[Keep],
    scales: Sequence[float] | None = None,
) -> dict[str, MaskedVector]:
    """Serve each task the merged vector under its mask, times its scale (1 by default).

    ``merge`` takes stacked deltas [tasks, ...] and merges entry by entry.
    """
    masks = Masks(lazy_vectors(task_vectors.values()), merge, keeps)
    scales = [1.0] * len(task_vectors) if scales is None else scales
    return {
        task: MaskedVector(masks, index, scale)
        for index, (task, scale) in enumerate(zip(task_vectors, scales, strict=True))
    }


def masked_rows(
    masks: Masks,
    pack: bool,
    finish: Callable[[str, int, tuple[Tensor, Tensor]], Any] = lambda name, start, found: found,
) -> Iterator[tuple[str, int, Any]]:
    """Yield (name, first row, ``finish`` of it, (merged rows, masks)); see `Masks.parts`."""
    return stream_parts(
        part.then(partial(finish, part.name, part.start))
        for name in masks.names
        for part in masks.parts(name, pack)
    )


def pack_vectors(
    served: Mapping[str, MaskedVector], done: Callable[[], object] = lambda: None
) -> dict[str, PackedVector]:
    """Compute all served vectors in one pass and keep them; calls ``done`` once a layer."""
    masks = next(iter(served.values())).masks
    merged: dict[str, list[Tensor]] = {}
    bits: dict[str, list[Tensor]] = {}
    for name, _, (rows, packed) in masked_rows(masks, pack=True):
        if name not in merged:
            merged[name], bits[name] = [], []
            done()
        merged[name].append(rows)
        bits[name].append(packed)
    shared = {n: rows[0] if len(rows) == 1 else torch.cat(rows) for n, rows in merged.items()}
    by_layer = {name: torch.cat(parts, dim=1) for name, parts in bits.items()}
    return {
        task: PackedVector(shared, {n: b[vector.index] for n, b in by_layer.items()}, vector.scale)
        for task, vector in served.items()
    }
