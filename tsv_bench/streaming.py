"""Vectors that are computed layer by layer, while the next layer is being read."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tsv_bench.lapack import one_thread

# Entries of all tasks together that an entrywise rule gets at once: few enough for a core's cache.
BLOCK = 2**20
# Entries read, worked on or waiting to be taken: 1 GB in float32, but two layers at least.
IN_FLIGHT = 2**28

# Shows the progress of steps before the first layer, or within a long one; `merging` hangs
# a bar here.
observer: ContextVar[Callable[[Iterable, int, str], Iterable]] = ContextVar(
    "observer", default=lambda steps, total, label: steps
)


def watched(steps: Iterable, total: int, label: str) -> Iterable:
    return observer.get()(steps, total, label)


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


def stream(vector: Mapping[str, Tensor]) -> Iterator[tuple[str, int, Tensor]]:
    """Every layer as (name, first row, rows), in order; a large one may come in several blocks.

    Reading runs ahead in a thread of its own. On a CPU as many parts are computed side by side as
    torch has threads and memory allows: decompositions gain more by this than by threads within.
    """
    if not isinstance(vector, LazyVector):
        yield from ((name, 0, vector[name]) for name in vector)
        return
    threads = torch.get_num_threads()
    waiting: deque[tuple[Part, Future]] = deque()
    num_entries = 0
    reader = ThreadPoolExecutor(1, "read", initializer=torch.set_num_threads, initargs=(1,))
    computers = ThreadPoolExecutor(threads, "compute")

    def compute(part: Part, material: Future) -> Tensor:
        side_by_side = 1 if part.alone else max(1, IN_FLIGHT // max(part.num_entries, 1))
        torch.set_num_threads(max(1, threads // side_by_side))
        return part.compute(material.result())

    settings = ExitStack()
    try:
        settings.enter_context(one_thread())
        for part in (part for name in vector for part in vector.parts(name)):
            alone = part.alone or any(other.alone for other, _ in waiting)
            while waiting and alone or len(waiting) > 1 and (
                num_entries + part.num_entries > IN_FLIGHT or len(waiting) > 4 * threads
            ):  # fmt: skip
                first, result = waiting.popleft()
                yield first.name, first.start, result.result()
                num_entries -= first.num_entries
            material = reader.submit(part.read)
            # A thread has a context of its own, without the observer.
            computed = computers.submit(copy_context().run, compute, part, material)
            waiting.append((part, computed))
            num_entries += part.num_entries
            del material
        while waiting:
            first, result = waiting.popleft()
            yield first.name, first.start, result.result()
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
        computers.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # MKL has one setting for all threads
        settings.close()


def gather(rows: Iterable[tuple[str, int, Tensor]]) -> dict[str, Tensor]:
    """The whole vector that `stream` gives in rows."""
    found: dict[str, list[Tensor]] = {}
    for name, _, tensor in rows:
        found.setdefault(name, []).append(tensor)
    return {n: parts[0] if len(parts) == 1 else torch.cat(parts) for n, parts in found.items()}
