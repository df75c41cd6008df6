"""Order statistics of whole task vectors that are never in memory."""

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
    """A real type, and the whole one whose order its bits have where no value is below zero."""

    number: int
    whole: torch.dtype
    real: torch.dtype


def bits_of(vectors: Sequence[LazyMapping]) -> Bits:
    """Return float64's bits if a layer has that type, else float32's."""
    wide = any(vector.dtype(name) == torch.float64 for vector in vectors for name in vector)
    return Bits(64, torch.int64, torch.float64) if wide else Bits(32, torch.int32, torch.float32)


def rank_of(share: float | int, num_entries: int) -> int:
    """Return how many entries a share of them is: rounded up, at least one."""
    # Rounded first, because 0.07 * 100 is 7.000000000000001.
    return max(1, math.ceil(round(num_entries * share, 6)))


def trim_thresholds(vectors: Sequence[Mapping], density: float | int) -> list[float]:
    """`trim_threshold` of every vector, side by side, one thread for each."""
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
    """The smallest magnitude kept, if ceil(density * entries) are; all that equal it are kept.

    Exact, over all layers together, entries that fine-tuning left alone included. The bits of
    magnitudes, read as whole numbers, are in the same order. So a histogram of their leading bits
    tells which of these the threshold has, and another pass over the vector the bits that follow.
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
            # Other leading bits than the threshold's go into the bin before or after.
            digits = (magnitudes - (threshold << (shift + DIGIT))) >> shift
            digits = digits.clamp_(-1, 2**DIGIT).add_(1)
            counts += torch.bincount(digits, minlength=2**DIGIT + 2)[1:-1].cpu()
        upto = counts.cumsum(0)
        digit = int(torch.searchsorted(upto, below, right=True))
        below -= int(upto[digit - 1]) if digit else 0
        threshold = threshold << DIGIT | digit
    return float(torch.tensor(threshold, dtype=whole).view(real))


MANY = 32  # tensors that wait to be counted: however small, they split the memory around them


def order_statistics(
    vectors: Sequence[Mapping],
    rule: Callable[[Tensor], Tensor],
    shares: Sequence[float | int],
) -> Float[Tensor, "tasks shares"]:
    """Of each task the smallest of its ceil(share * entries) largest values; exact.

    ``rule`` makes values, none below zero, of stacked deltas; at least one counts. All layers of
    a task together, never in memory: the bits of such values, read as whole numbers, are in the
    same order, so that a histogram of the leading ones tells which of these the answer has.
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
            # The bits of -0.0 are those of a number below zero.
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
    """The last digit of those, mostly few, that have the leading bits of ``start``."""
    return values[values >> DIGIT == start >> DIGIT] - start


class Tally:
    """How often each of the 2^16 digits has been seen; counted when there are many to count."""

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
) -> Iterable:  # not of what: a type checker would take the first
    """Yield what ``rule`` makes of each part of the vectors, one part after the other."""
    parts = [part for name in vectors[0].names for part in blocks(vectors, name, rule)]
    return watched(stream_parts(parts), len(parts), label)
