"""Experts stacked in 3-D tensors, and convolution kernels, as the matrices that they are."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tsv_bench.task_vectors.lazy import LazyMapping, LazyVector, Part, Triplets, as_lazy


class AsMatrices:
    """A method that sees each expert of a stack, or each kernel as [outputs, all else], as 2-D.

    ``stacked``: a layer [experts, m, n] is one layer for each expert, called layer.0, layer.1, ...
    ``kernels``: a layer [outputs, inputs, ...] of four or five axes is [outputs, inputs * ...].
    What is served has the shapes of the checkpoints again.
    """

    def __init__(self, serve: Callable, stacked: bool, kernels: bool) -> None:
        self.serve, self.stacked, self.kernels = serve, stacked, kernels
        # What warns of knobs looks for them where a partial has them.
        self.keywords = getattr(serve, "keywords", {})

    def __call__(self, task_vectors: Mapping[str, Mapping], **given: Any) -> Mapping:
        views = {
            task: MatrixView(vector, self.stacked, self.kernels)
            for task, vector in task_vectors.items()
        }
        served = self.serve(views, **given)
        if not views:
            return served
        like = next(iter(views.values()))
        # One vector for all tasks stays one object.
        shaped = {id(vector): shaped_as(like, vector) for vector in served.values()}
        return {task: shaped[id(vector)] for task, vector in served.items()}


class MatrixView(LazyMapping):
    """A task vector whose experts and kernels are matrices."""

    def __init__(self, vector: Mapping, stacked: bool, kernels: bool) -> None:
        self._layers = as_lazy(vector)
        self.reads_rows, self.weight = self._layers.reads_rows, self._layers.weight
        self.experts: dict[str, list[str]] = {}  # stack -> the names of its experts
        self._source: dict[str, tuple[str, int | None]] = {}  # name -> the layer and the expert
        self._shapes: dict[str, torch.Size] = {}
        for name in self._layers:
            shape = self._layers.shape(name)
            if stacked and len(shape) == 3:
                self.experts[name] = [f"{name}.{expert}" for expert in range(shape[0])]
                for expert, own in enumerate(self.experts[name]):
                    self._source[own], self._shapes[own] = (name, expert), shape[1:]
            else:
                flat = kernels and len(shape) in (4, 5) and shape.numel() > 0
                self._shapes[name] = torch.Size((shape[0], shape[1:].numel())) if flat else shape
                self._source[name] = name, None

    @property
    def layers(self) -> LazyMapping:
        """The vector as it is."""
        return self._layers

    @property
    def names(self) -> Collection[str]:
        return self._shapes.keys()

    def shape(self, name: str) -> torch.Size:
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        return self._layers.dtype(self._source[name][0])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        layer, expert = self._source[name]
        if expert is not None:
            return self._layers.rows(layer, expert, expert + 1)[0, start:stop]
        rows = self._layers.rows(layer, start, stop)
        return rows.reshape(len(rows), *self._shapes[name][1:]) if rows.ndim else rows

    def recall(self, name: str, rank: int, kind: str) -> Triplets | None:
        as_it_is = self._is_unchanged(name)
        return self._layers.recall(name, rank, kind) if as_it_is else None

    def keep(self, name: str, triplets: Triplets, kind: str) -> None:
        if self._is_unchanged(name):
            self._layers.keep(name, triplets, kind)

    def factor_rank(self, name: str) -> int | None:
        as_it_is = self._is_unchanged(name)
        return self._layers.factor_rank(name) if as_it_is else None

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        return self._layers.factors(name) if self._is_unchanged(name) else None

    def rank_ahead(self, full_rank: int) -> int:
        return self._layers.rank_ahead(full_rank)

    def _is_unchanged(self, name: str) -> bool:
        layer, expert = self._source[name]
        return expert is None and self._layers.shape(layer) == self._shapes[name]


def shaped_as(view: MatrixView, vector: Mapping) -> LazyVector:
    """Return what is served of views, in the shapes that the vectors themselves have."""
    layers = view.layers
    lazy = vector if isinstance(vector, LazyVector) else None
    whole = as_lazy(vector)

    def parts_of(name: str) -> Sequence[Part]:
        if lazy is not None:
            return lazy.parts(name)
        entries = whole.shape(name).numel()
        return [Part(name, 0, entries, lambda: whole[name], lambda read: read)]

    def expert(name: str, place: int, own: Sequence[Part]) -> Part:
        def compute(read: list) -> Tensor:
            rows = [part.compute(one) for part, one in zip(own, read, strict=True)]
            return (rows[0] if len(rows) == 1 else torch.cat(rows))[None]

        return Part(
            name, place, sum(part.num_entries for part in own),
            lambda: [part.read() for part in own], compute,
            alone=any(part.alone for part in own),
            entrywise=all(part.entrywise for part in own),
        )  # fmt: skip

    def parts(name: str) -> Sequence[Part]:
        if name in view.experts:
            names = view.experts[name]
            return [expert(name, place, parts_of(own)) for place, own in enumerate(names)]
        shape = layers.shape(name)
        if view.shape(name) == shape:
            return parts_of(name)
        return [part.then(lambda rows: rows.reshape(-1, *shape[1:])) for part in parts_of(name)]

    return LazyVector([layers], parts)
