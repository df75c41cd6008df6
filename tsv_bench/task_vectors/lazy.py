"""Lazy layers: named tensors that are read or computed when asked for, whole or in rows."""

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Entries of all tasks together that an entrywise rule gets at once: few enough for a core's cache.
BLOCK = 2**20

Delta = Float[Tensor, "..."]
Deltas = Float[Tensor, "tasks ..."]
Triplets = tuple[Tensor, Tensor, Tensor]  # u, s, vh
# Task -> layer -> delta. The inner type is bare: a check of its values would read a layer.
TaskVectors = Mapping[str, Mapping]
ServedVectors = Mapping[str, Mapping]  # the same of what a method gives each task


class LazyMapping(Mapping):  # of names to tensors; said so, a run-time check would read one
    """Named layers, each read or computed when it is asked for; nothing is kept.

    Names, shapes and types are known without that. What else holds weights or deltas is one of
    these too, so that nobody has to guess: a plain dict becomes one by `as_lazy`.
    """

    fresh = False  # whether a tensor that is read belongs to the caller, who may change it
    reads_rows = True  # whether a few rows cost less than the whole layer

    @property
    @abstractmethod
    def names(self) -> Collection[str]:
        """The layers' names, in order."""

    @abstractmethod
    def shape(self, name: str) -> torch.Size:
        """Return a layer's shape. Raises KeyError if there is no such layer."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """Return a layer's type. Raises KeyError if there is no such layer."""

    @abstractmethod
    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return ``self[name][start:stop]``. A 0-d tensor is one row, itself."""

    def recall(self, name: str, rank: int, kind: str) -> Triplets | None:
        """Return singular triplets that were kept: at most ``rank``, or None."""
        return None

    def keep(self, name: str, triplets: Triplets, kind: str) -> None:
        """Leave singular triplets to be recalled; this one forgets them."""

    def rank_ahead(self, full_rank: int) -> int:
        """Return the rank that is worth computing because it will be wanted later."""
        return 0

    def num_rows(self, name: str) -> int:
        """Return the size of a layer's first axis; 1 for a 0-d layer."""
        shape = self.shape(name)
        return shape[0] if shape else 1

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name, 0, self.num_rows(name))

    def __contains__(self, name: object) -> bool:
        return name in self.names  # Mapping's own would read the layer

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class PlainLayers(LazyMapping):
    """The layers of a mapping that knows nothing of rows: a dict of tensors, a user's own."""

    def __init__(self, layers: Mapping[str, Tensor]) -> None:
        self._layers = layers
        self.reads_rows = isinstance(layers, dict)  # others may compute all of a layer each time

    @property
    def names(self) -> Collection[str]:
        return self._layers.keys()

    def shape(self, name: str) -> torch.Size:
        return self._layers[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self._layers[name].dtype

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        tensor = self._layers[name]
        return tensor[start:stop] if tensor.ndim else tensor

    def __getitem__(self, name: str) -> Tensor:
        return self._layers[name]


def as_lazy(layers: Mapping) -> LazyMapping:
    """Return the mapping itself if it is lazy, else one that wraps it."""
    return layers if isinstance(layers, LazyMapping) else PlainLayers(layers)


def lazy_vectors(vectors: Iterable[Mapping]) -> list[LazyMapping]:
    """Return the vectors as lazy ones. Raises ValueError unless all have the same layers."""
    vectors = [as_lazy(vector) for vector in vectors]
    for vector in vectors[1:]:
        odd = set(vector) ^ set(vectors[0])
        if odd:
            raise ValueError(
                f"cannot merge task vectors with different layers: {len(odd)} appear in only one "
                f"of them, first {min(odd)!r}. Are all of the same backbone?"
            )
    return vectors


def widest_dtype(vectors: Sequence[LazyMapping], name: str) -> torch.dtype:
    """Return the widest type that the vectors have of one layer, float32 at least."""
    return reduce(torch.promote_types, (_at_least_float32(v.dtype(name)) for v in vectors))


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32  # float8 has no rule of promotion


@dataclass(frozen=True)
class Part:
    """A layer, or some of its rows: what is read at once, and what is made of it."""

    name: str
    start: int  # the first row
    num_entries: int  # read, of all tasks together
    read: Callable[[], Any]
    compute: Callable[[Any], Any]  # rows of the layer; anything else where no vector is made
    alone: bool = False  # what it takes to compute leaves no memory for another


class LazyVector(LazyMapping):
    """A vector whose layers are computed on access, part by part; nothing is kept.

    It has the layers and shapes of the vectors ``like`` that it is made of, in their widest type.
    """

    reads_rows = False

    def __init__(self, like: Sequence[LazyMapping], parts: Callable[[str], Sequence[Part]]) -> None:
        self._like, self._parts = like, parts

    @property
    def names(self) -> Collection[str]:
        return self._like[0].names if self._like else ()

    def shape(self, name: str) -> torch.Size:
        return self._like[0].shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return widest_dtype(self._like, name)

    def parts(self, name: str) -> Sequence[Part]:
        """Return what the layer is computed from. Raises KeyError if there is no such layer."""
        if name not in self.names:
            raise KeyError(name)
        return self._parts(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        layer = self[name]
        return layer[start:stop] if layer.ndim else layer

    def __getitem__(self, name: str) -> Tensor:
        tensors = [part.compute(part.read()) for part in self.parts(name)]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def blocks(
    vectors: Sequence[LazyMapping],
    name: str,
    rule: Callable[[Tensor], Any],
    multiple: int = 1,
) -> list[Part]:
    """Return the parts of one layer that an entrywise rule makes of stacked deltas.

    A part is some rows of the layer, of about `BLOCK` entries. The entries that a part has of one
    task are a multiple of ``multiple``, but for the last part's.
    """
    shape, num_rows = vectors[0].shape(name), vectors[0].num_rows(name)
    entries = len(vectors) * shape.numel()
    in_rows = bool(shape) and all(vector.reads_rows for vector in vectors)
    step = max(1, num_rows * BLOCK // max(entries, 1)) if in_rows else max(num_rows, 1)
    if step < num_rows:
        unit = multiple // math.gcd(multiple, shape.numel() // num_rows)
        step = max(step // unit, 1) * unit

    def part(start: int) -> Part:
        stop = min(start + step, num_rows)

        def read() -> Tensor:
            if step >= num_rows:
                return stacked((v[name] for v in vectors), len(vectors))
            return stacked((v.rows(name, start, stop) for v in vectors), len(vectors))

        return Part(name, start, entries * (stop - start) // max(num_rows, 1), read, rule)

    return [part(start) for start in range(0, max(num_rows, 1), step)]


def stacked(deltas: Iterable[Tensor], num_tasks: int) -> Tensor:
    """Stack deltas, tasks x shape, in the widest type among them, float32 at least.

    One delta at a time is taken, so that an iterator holds no second copy of all.
    """
    stack = None
    for index, delta in enumerate(deltas):
        if stack is None:
            dtype = _at_least_float32(delta.dtype)
            stack = delta.new_empty((num_tasks, *delta.shape), dtype=dtype)
        stack = stack.to(torch.promote_types(stack.dtype, _at_least_float32(delta.dtype)))
        stack[index] = delta
    return stack
