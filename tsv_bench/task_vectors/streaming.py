"""Compute vectors layer by layer while the next layer is being read.

`torch.set_num_threads` is global to the process (MKL has one setting for all threads). `stream`
changes it while it runs, on behalf of its own threads, and restores it at the end.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tsv_bench.linalg.lapack import one_thread
from tsv_bench.task_vectors.lazy import LazyVector, Part, turn

# Entries that are read, worked on or waiting to be taken, at most: 1 GB in float32. Two layers may
# always be there.
IN_FLIGHT = 2**28

# What wraps long loops within methods, to show their progress: it takes an iterable, its length and
# a label, and returns the iterable. By default it shows nothing; `merging` sets one that draws a
# bar. A variable of the context, so that methods need no parameter for it.
observer: ContextVar[Callable[[Iterable, int, str], Iterable]] = ContextVar(
    "observer", default=lambda steps, total, label: steps
)


def watched(steps: Iterable, total: int, label: str) -> Iterable:
    """Return the steps, shown by the `observer` as they are taken."""
    return observer.get()(steps, total, label)


def stream(
    vector: Mapping, finish: Callable[[str, int, Tensor], Tensor] | None = None
) -> Iterator[tuple[str, int, Tensor]]:
    """Yield every layer as (name, first row, rows), in order; a large one in several blocks.

    ``finish``: what is yielded of a name, a first row and rows. It is computed with them.
    """

    def finished(part: Part) -> Part:
        return part.then(partial(finish, part.name, part.start)) if finish else part

    if isinstance(vector, LazyVector):
        yield from stream_parts(finished(part) for n in vector for part in vector.parts(n))
    else:
        for name in vector:
            yield name, 0, finish(name, 0, vector[name]) if finish else vector[name]


def stream_parts(parts: Iterable[Part]) -> Iterator[tuple[str, int, Any]]:
    """Yield (name, first row, what is computed of it) for every part, in order.

    On a CPU as many parts are computed side by side as torch has threads and memory allows:
    decompositions gain more by this than by threads within. A thread of its own reads ahead for
    them. An entrywise part is read and computed by one thread, while it is in the core's cache.
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

    def compute_entrywise(part: Part) -> Any:
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        return part.compute(part.read())

    def submit(part: Part, number: int) -> Future:
        # A thread starts with a context of its own, without the observer.
        reading, computing = copy_context(), copy_context()
        for context in (reading, computing):
            context.run(turn.set, number)
        if part.entrywise:
            return computers.submit(computing.run, compute_entrywise, part)
        material = reader.submit(reading.run, part.read)
        return computers.submit(computing.run, compute, part, material)

    def must_wait(part: Part) -> bool:
        if part.alone or any(other.alone for other, _ in waiting):
            return len(waiting) > 0
        is_full = num_entries + part.num_entries > IN_FLIGHT or len(waiting) > 4 * threads
        return len(waiting) > 1 and is_full

    settings, limited = ExitStack(), False
    try:
        for number, part in enumerate(parts):
            if not part.entrywise and not limited:  # entrywise work calls no LAPACK
                settings.enter_context(one_thread())
                limited = True
            while must_wait(part):
                first, result = waiting.popleft()
                yield first.name, first.start, result.result()
                num_entries -= first.num_entries
            waiting.append((part, submit(part, number)))
            num_entries += part.num_entries
        while waiting:
            first, result = waiting.popleft()
            yield first.name, first.start, result.result()
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
        computers.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
        settings.close()


def side_by_side(function: Callable[[Any], Any], items: Iterable) -> Iterator:
    """Yield ``function`` of each item, in order; one thread each, as many as torch has."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, "compute", torch.set_num_threads, (1,)) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def gather(rows: Iterable[tuple[str, int, Tensor]]) -> dict[str, Tensor]:
    """Return the whole vector whose rows `stream` yields; a layer is where its first rows are."""
    found: dict[str, list[Tensor]] = {}
    for name, _, tensor in rows:
        parts = found.setdefault(name, [])
        parts.append(tensor.to(parts[0].device) if parts else tensor)
    return {n: parts[0] if len(parts) == 1 else torch.cat(parts) for n, parts in found.items()}
