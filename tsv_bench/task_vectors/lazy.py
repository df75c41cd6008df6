"""Lazy layers: named tensors that are read or computed on access, whole or in rows."""

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# The number of the part that this thread works on: where there are several devices, parts go round.
turn: ContextVar[int] = ContextVar("turn", default=0)

# Entries, of all tasks together, that an entrywise rule gets at a time: they fit a core's cache. Of
# many tasks they are more: with less than an eighth for each, Python's own work would prevail.
BLOCK = 2**20

Delta = Float[Tensor, "..."]
Deltas = Float[Tensor, "tasks ..."]
Triplets = tuple[Tensor, Tensor, Tensor]  # u, s, vh
# Task -> layer -> delta. The inner type has no parameters, as checking them would read a layer.
TaskVectors = Mapping[str, Mapping]
ServedVectors = Mapping[str, Mapping]  # task -> layer -> what a method serves


class LazyMapping(Mapping):  # no type parameters: a run-time check of them would read a layer
    """Named layers, each read or computed on access; nothing is kept.

    Names, shapes and types are known without reading. Everything that holds weights or deltas is a
    subclass; `as_lazy` wraps a plain dict.
    """

    reads_rows = True  # whether reading a few rows costs less than the whole layer
    weight: float | int = 1  # a task's, by which all is multiplied already; for means over tasks

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

    def wide_rows(self, name: str, start: int, stop: int, device: torch.device) -> Tensor:
        """Return `rows` in float32 at least. They may be shared: do not change them."""
        rows = self.rows(name, start, stop).to(device)  # narrow ones: fewer bytes to move
        return rows.to(_at_least_float32(rows.dtype))

    def read_into(self, name: str, start: int, stop: int, out: Tensor) -> None:
        """Fill ``out`` with `rows`, in its own type and on its own device."""
        out.copy_(self.rows(name, start, stop))

    def rows_together(self, name: str) -> int:
        """Return the number of rows of which a multiple is read without waste."""
        return 1

    def recall(self, name: str, rank: int, kind: str) -> Triplets | None:
        """Return singular triplets that were kept: at most ``rank``, or None."""
        return None

    def keep(self, name: str, triplets: Triplets, kind: str) -> None:
        """Keep singular triplets for `recall`. This class keeps none."""

    def rank_ahead(self, full_rank: int) -> int:
        """Return the rank to compute now because `recall` will be asked for it later."""
        return 0

    def factor_rank(self, name: str) -> int | None:
        """Return the rank of a layer's `factors`; 0: the layer is zero; None: it has none."""
        return None

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Return [m, r] and [r, n] whose product a matrix is known to be, or None."""
        return None

    def num_rows(self, name: str) -> int:
        """Return the size of a layer's first axis; 1 for a 0-d layer."""
        shape = self.shape(name)
        return shape[0] if shape else 1

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name, 0, self.num_rows(name))

    def __contains__(self, name: object) -> bool:
        return name in self.names  # Mapping's own __contains__ would read the layer

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class PlainLayers(LazyMapping):
    """The layers of a mapping that cannot read rows: a dict of tensors, a user's own class."""

    def __init__(self, layers: Mapping[str, Tensor]) -> None:
        self._layers = layers
        self.reads_rows = isinstance(layers, dict)  # others may compute a whole layer each time

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


class OtherLayers(LazyMapping):
    """The layers of another mapping, to which a subclass adds what it knows of them."""

    def __init__(self, layers: Mapping) -> None:
        self._layers = as_lazy(layers)
        self.reads_rows = self._layers.reads_rows

    @property
    def names(self) -> Collection[str]:
        return self._layers.names

    def shape(self, name: str) -> torch.Size:
        return self._layers.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self._layers.dtype(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        return self._layers.rows(name, start, stop)

    def __getitem__(self, name: str) -> Tensor:
        return self._layers[name]


def as_lazy(layers: Mapping) -> LazyMapping:
    """Return the mapping itself if it is lazy, else one that wraps it."""
    return layers if isinstance(layers, LazyMapping) else PlainLayers(layers)


def lazy_vectors(vectors: Iterable[Mapping]) -> list[LazyMapping]:
    """Return the vectors wrapped by `as_lazy`. Raises ValueError if their layers' names differ."""
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
    """Return the widest type of one layer in all the vectors, float32 at least."""
    return widest(v.dtype(name) for v in vectors)


def widest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """Return the widest of floating-point types, float32 at least."""
    return reduce(torch.promote_types, map(_at_least_float32, dtypes))


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32  # float8 has no rule of promotion


@dataclass(frozen=True)
class Part:
    """A unit of work: a layer or some of its rows, how to read it and what to compute of it."""

    name: str
    start: int  # the first row
    num_entries: int  # that are read, of all tasks together
    read: Callable[[], Any]
    compute: Callable[[Any], Any]  # gives the vector's rows, or a statistic of them
    alone: bool = False  # whether computing it leaves no memory for another part
    entrywise: bool = False  # whether it is quick work on few entries, which one thread does whole

    def then(self, function: Callable[[Any], Any]) -> "Part":
        """Return the part that computes ``function`` of what this one computes."""
        return replace(self, compute=lambda read: function(self.compute(read)))


class LazyVector(LazyMapping):
    """A vector whose layers are computed on access, part by part; nothing is kept.

    It has the layers and shapes of the vectors ``like``, in their widest type.
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
        """Return the parts that make up a layer. Raises KeyError if there is no such layer."""
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
    """Return the parts of one layer, each the rule's result for stacked deltas [tasks, rows, ...].

    A part has about `BLOCK` entries, all of the layer if a vector cannot read rows. In every part
    but the last, a task's number of entries is a multiple of ``multiple``.
    """
    shape, num_rows = vectors[0].shape(name), vectors[0].num_rows(name)
    entries = len(vectors) * shape.numel()
    in_rows = bool(shape) and all(vector.reads_rows for vector in vectors)
    most = BLOCK * max(8, len(vectors)) // 8
    step = max(1, num_rows * most // max(entries, 1)) if in_rows else max(num_rows, 1)
    if step < num_rows:
        unit = multiple // math.gcd(multiple, shape.numel() // num_rows)
        step = max(step // unit, 1) * unit
        together = math.lcm(unit, *(vector.rows_together(name) for vector in vectors))
        step -= step % together if together <= step else 0

    def part(start: int) -> Part:
        stop = min(start + step, num_rows)

        def read() -> Tensor:
            if in_rows:
                return stacked_rows(vectors, name, start, stop)
            return stacked((vector[name] for vector in vectors), len(vectors))

        num_entries = entries * (stop - start) // max(num_rows, 1)
        return Part(name, start, num_entries, read, rule, entrywise=True)

    return [part(start) for start in range(0, max(num_rows, 1), step)]


def stacked_rows(vectors: Sequence[LazyMapping], name: str, start: int, stop: int) -> Tensor:
    """Return some rows of each vector as [vectors, rows, ...], where the first one's are."""
    first = vectors[0].rows(name, start, stop)
    stack = first.new_empty((len(vectors), *first.shape), dtype=widest_dtype(vectors, name))
    stack[0] = first
    for vector, out in zip(vectors[1:], stack[1:], strict=True):
        vector.read_into(name, start, stop, out)
    return stack


def stacked(deltas: Iterable[Tensor], num_tasks: int) -> Tensor:
    """Stack deltas into [tasks, *shape], in the widest type among them, float32 at least.

    Takes one delta at a time, so that an iterator need not hold a second copy of all.
    """
    stack = None
    for index, delta in enumerate(deltas):
        if stack is None:
            dtype = _at_least_float32(delta.dtype)
            stack = delta.new_empty((num_tasks, *delta.shape), dtype=dtype)
        stack = stack.to(torch.promote_types(stack.dtype, _at_least_float32(delta.dtype)))
        stack[index] = delta
    return stack
