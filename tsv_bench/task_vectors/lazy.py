"""Named layers that are read or computed on access, and their parts."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Entries of all tasks together that an entrywise rule gets at once: few enough for a core's cache.
BLOCK = 2**20


@dataclass(frozen=True)
class Part:
    """A layer, or some of its rows: what is read at once, and what is made of it."""

    name: str
    start: int  # the first row
    num_entries: int  # read, of all tasks together
    read: Callable[[], Any]
    compute: Callable[[Any], Tensor]
    alone: bool = False  # what it takes to compute leaves no memory for another


class LazyVector(Mapping[str, Tensor]):
    """A vector whose layers are computed on access; nothing is kept."""

    def __init__(self, names: Iterable[str], parts: Callable[[str], Sequence[Part]]) -> None:
        self._names = dict.fromkeys(names)
        self._parts = parts

    def parts(self, name: str) -> Sequence[Part]:
        if name not in self._names:
            raise KeyError(name)
        return self._parts(name)

    def __getitem__(self, name: str) -> Tensor:
        tensors = [part.compute(part.read()) for part in self.parts(name)]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping's own would compute the layer

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def blocks(
    vectors: Sequence[Mapping[str, Tensor]],
    name: str,
    rule: Callable[[Tensor], Any],
    multiple: int = 1,
) -> list[Part]:
    """One layer by an entrywise rule of the stacked deltas, in blocks of rows.

    The entries of a block, of one task, are a multiple of ``multiple``; but for the last one's.
    """
    shape = shape_of(vectors[0], name)
    num_rows = shape[0] if shape else 1
    entries = len(vectors) * shape.numel()
    in_rows = bool(shape) and all(hasattr(vector, "rows") for vector in vectors)
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
    """Tasks x shape, of the widest type among them, float32 at least; one delta at a time."""
    stack = None
    for index, delta in enumerate(deltas):
        if stack is None:
            dtype = torch.promote_types(torch.float32, delta.dtype)
            stack = delta.new_empty((num_tasks, *delta.shape), dtype=dtype)
        stack = stack.to(torch.promote_types(stack.dtype, delta.dtype))
        stack[index] = delta
    return stack


def shape_of(vector: Mapping[str, Tensor], name: str) -> torch.Size:
    """A layer's shape; without reading it where the vector can tell."""
    shape = getattr(vector, "shape", None)
    return torch.Size(shape(name) if shape else vector[name].shape)


Delta = Float[Tensor, "..."]
Deltas = Float[Tensor, "tasks ..."]
Triplets = tuple[Tensor, Tensor, Tensor]  # u, s, vh
TaskVectors = Mapping[str, Mapping[str, Tensor]]


def dtype_of(state: Mapping[str, Tensor], name: str) -> torch.dtype:
    dtype = getattr(state, "dtype", None)
    return dtype(name) if dtype else state[name].dtype


def rows_of(state: Mapping[str, Tensor], name: str, start: int, stop: int) -> Tensor:
    rows = getattr(state, "rows", None)
    return rows(name, start, stop) if rows else state[name][start:stop]
