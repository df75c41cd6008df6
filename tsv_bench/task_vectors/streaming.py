"""Vectors that are computed layer by layer, while the next layer is being read."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import ContextVar, copy_context
from typing import Any

import torch
from torch import Tensor

from tsv_bench.linalg.lapack import one_thread
from tsv_bench.task_vectors.lazy import LazyVector, Part

# Entries read, worked on or waiting to be taken: 1 GB in float32, but two layers at least.
IN_FLIGHT = 2**28

# Shows the progress of steps before the first layer, or within a long one; `merging` hangs
# a bar here.
observer: ContextVar[Callable[[Iterable, int, str], Iterable]] = ContextVar(
    "observer", default=lambda steps, total, label: steps
)


def watched(steps: Iterable, total: int, label: str) -> Iterable:
    return observer.get()(steps, total, label)


def stream(vector: Mapping) -> Iterator[tuple[str, int, Tensor]]:
    """Yield every layer as (name, first row, rows), in order; a large one in several blocks."""
    if isinstance(vector, LazyVector):
        yield from stream_parts(part for name in vector for part in vector.parts(name))
    else:
        yield from ((name, 0, vector[name]) for name in vector)


def stream_parts(parts: Iterable[Part]) -> Iterator[tuple[str, int, Any]]:
    """Yield (name, first row, what is computed of it) for every part, in order.

    Reading runs ahead in a thread of its own. On a CPU as many parts are computed side by side as
    torch has threads and memory allows: decompositions gain more by this than by threads within.
    """
    threads = torch.get_num_threads()
    waiting: deque[tuple[Part, Future]] = deque()
    num_entries = 0
    reader = ThreadPoolExecutor(1, "read", initializer=torch.set_num_threads, initargs=(1,))
    computers = ThreadPoolExecutor(threads, "compute")

    def compute(part: Part, material: Future) -> Any:
        side_by_side = 1 if part.alone else max(1, IN_FLIGHT // max(part.num_entries, 1))
        torch.set_num_threads(max(1, threads // side_by_side))
        return part.compute(material.result())

    settings = ExitStack()
    try:
        settings.enter_context(one_thread())
        for part in parts:
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
