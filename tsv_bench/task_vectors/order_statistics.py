"""Order statistics over all layers of a task vector, which is never in memory as a whole.

By radix selection: the bits of numbers that are not negative, read as whole numbers, are in the
same order. A histogram of their leading 16 bits tells which of these the answer has; each further
pass over the vector settles the next 16.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tsv_bench.task_vectors.lazy import (
    BLOCK,
    LazyMapping,
    as_lazy,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.merge import mean
from tsv_bench.task_vectors.streaming import stream_parts, watched

DIGIT = 16  # bits that one pass settles


class Bits(NamedTuple):
    """A floating-point type, and the integer type as which its bits are read."""

    number: int
    whole: torch.dtype
    real: torch.dtype


def bits_of(vectors: Sequence[LazyMapping]) -> Bits:
    """Return float64's bits if any layer has that type, else float32's."""
    wide = any(vector.dtype(name) == torch.float64 for vector in vectors for name in vector)
    return Bits(64, torch.int64, torch.float64) if wide else Bits(32, torch.int32, torch.float32)


def rank_of(share: float | int, num_entries: int) -> int:
    """Return how many of the entries a share is, rounded up; at least one."""
    # Rounded first, because 0.07 * 100 is 7.000000000000001.
    return max(1, math.ceil(round(num_entries * share, 6)))


def trim_thresholds(vectors: Sequence[Mapping], density: float | int) -> list[float]:
    """Return `trim_threshold` of every vector, computed side by side, one thread each."""
    threads = torch.get_num_threads()

    def threshold(vector: Mapping) -> float:
        torch.set_num_threads(1)
        return trim_threshold(vector, density)

    with ThreadPoolExecutor(threads) as pool:
        try:
            found = pool.map(threshold, vectors)
            return list(watched(found, len(vectors), "thresholds"))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def trim_threshold(vector: Mapping, density: float | int) -> float:
    """Return the smallest of the ceil(density * entries) largest magnitudes of a vector, exactly.

    Over all layers together, with the entries that fine-tuning left unchanged. Faster than
    `order_statistics`, which handles all tasks in one pass.
    """
    vector = as_lazy(vector)
    parts = [part for name in vector for part in blocks([vector], name, mean)]
    num_entries = sum(part.num_entries for part in parts)
    below = num_entries - rank_of(density, num_entries)
    bits, whole, real = bits_of([vector])
    threshold = 0
    for shift in range(bits - DIGIT, -1, -DIGIT):
        counts = torch.zeros(2**DIGIT, dtype=torch.int64)
        for part in parts:
            magnitudes = part.read().to(real).abs_().flatten().view(whole)
            # Values whose leading bits are not the threshold's go into the first or last bin.
            digits = (magnitudes - (threshold << (shift + DIGIT))) >> shift
            digits = digits.clamp_(-1, 2**DIGIT).add_(1)
            counts += torch.bincount(digits, minlength=2**DIGIT + 2)[1:-1].cpu()
        upto = counts.cumsum(0)
        digit = int(torch.searchsorted(upto, below, right=True))
        below -= int(upto[digit - 1]) if digit else 0
        threshold = threshold << DIGIT | digit
    return float(torch.tensor(threshold, dtype=whole).view(real))


MANY = 32  # tensors that wait to be counted, at most: even small ones fragment memory


def order_statistics(
    vectors: Sequence[Mapping],
    rule: Callable[[Tensor], Tensor],
    shares: Sequence[float | int],
) -> Float[Tensor, "tasks shares"]:
    """Return for each task the smallest of its ceil(share * entries) largest values, exactly.

    ``rule`` maps stacked deltas [tasks, rows, ...] to values of the same shape, none negative. All
    layers of a task count together; a share of 0 is the largest value.
    """
    vectors = lazy_vectors(vectors)
    names = vectors[0].names
    num_entries = sum(vectors[0].shape(name).numel() for name in names)
    bits, whole, real = bits_of(vectors)
    below = torch.tensor([[num_entries - rank_of(s, num_entries) for s in shares]] * len(vectors))
    found = torch.zeros_like(below)
    for shift in range(bits - DIGIT, -1, -DIGIT):
        starts = (found << DIGIT).tolist()
        tallies = [{start: Tally() for start in of_task} for of_task in starts]

        def digits(deltas: Tensor, shift: int = shift, starts: list = starts) -> list:
            # abs, as the bits of -0.0 are those of a negative number.
            values = rule(deltas).to(real).abs().reshape(len(deltas), -1).view(whole) >> shift
            everything = shift == bits - DIGIT
            return [
                {start: task if everything else following(task, start) for start in of_task}
                for task, of_task in zip(values, starts, strict=True)
            ]

        for _, _, seen in counted(vectors, digits, f"order of entries, {bits} bits"):
            for task, of_task in enumerate(seen):
                for start, values in of_task.items():
                    tallies[task][start].add(values)
        counts = torch.stack(
            [
                torch.stack([tallies[task][start].counts() for start in of_task])
                for task, of_task in enumerate(starts)
            ]
        )
        upto = counts.cumsum(dim=2)
        digit = torch.searchsorted(upto, below[..., None], right=True)
        before = upto.gather(2, (digit - 1).clamp(min=0)) * (digit > 0)
        below = below - before[..., 0]
        found = found << DIGIT | digit[..., 0]
    return found.to(whole).view(real)


def following(values: Int[Tensor, " entries"], start: int) -> Int[Tensor, " found"]:
    """Return the last digit of the values, mostly few, with the leading bits of ``start``."""
    return values[values >> DIGIT == start >> DIGIT] - start


class Tally:
    """A histogram over the 2^16 digits that gathers values and counts many at a time."""

    def __init__(self) -> None:
        self._counts = torch.zeros(2**DIGIT, dtype=torch.int64)
        self._waiting: list[Tensor] = []
        self._num_waiting = 0

    def add(self, digits: Int[Tensor, " found"]) -> None:
        self._waiting.append(digits)
        self._num_waiting += len(digits)
        if self._num_waiting > BLOCK or len(self._waiting) > MANY:
            self._count()

    def counts(self) -> Int[Tensor, " digits"]:
        self._count()
        return self._counts

    def _count(self) -> None:
        if self._num_waiting:
            seen = torch.cat(self._waiting)
            self._counts += torch.bincount(seen, minlength=len(self._counts)).cpu()
        self._waiting, self._num_waiting = [], 0


def counted(
    vectors: Sequence[LazyMapping], rule: Callable[[Tensor], list], label: str
) -> Iterable:  # no type parameter: the run-time check of it would take the first item
    """Yield ``rule``'s result for each part of the vectors, in order."""
    parts = [part for name in vectors[0].names for part in blocks(vectors, name, rule)]
    return watched(stream_parts(parts), len(parts), label)
