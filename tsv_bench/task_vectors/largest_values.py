"""Find the values of some ranks among those of layers that are read block by block.

The bits of numbers that are not negative, read as whole numbers, are in the same order. A sample
tells about where a value lies; one reading counts what is below these bounds, and every value
within them. Where the sample misled, or bounds are too wide to count every value, another follows.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tsv_bench.linalg.selection import MARGIN, frequent, ranked, within
from tsv_bench.task_vectors.lazy import (
    BLOCK,
    LazyMapping,
    Part,
    blocks,
    stacked_rows,
)

# Stacked deltas [tasks, rows, ...] -> values of this shape in a tensor of their own, none negative.
Rule = Callable[[Tensor], Tensor]

FEW = 2**24  # entries, of all tasks together, that are gathered
SAMPLE, RUNS = 2**16, 4  # entries of a sample at least, and the places of a layer it is taken from
BINS, ALL_BINS = 2**20, 2**24  # that one reading counts into, for one statistic and for all
MANY = 32  # tensors that wait to be counted, at most: even small ones fragment memory


class Bits(NamedTuple):
    """A floating-point type, and the integer type as which its bits are read."""

    whole: torch.dtype
    real: torch.dtype

    @property
    def largest(self) -> int:
        """The bits of infinity."""
        return int(torch.tensor(torch.inf, dtype=self.real).view(self.whole))


def bits_of(vectors: Sequence[LazyMapping], names: Sequence[str]) -> Bits:
    """Return float64's bits if any of these layers has that type, else float32's."""
    wide = any(vector.dtype(name) == torch.float64 for vector in vectors for name in names)
    return Bits(torch.int64, torch.float64) if wide else Bits(torch.int32, torch.float32)


def largest_values(
    vectors: Sequence[LazyMapping],
    names: Sequence[str],
    rule: Rule,
    ranks: Sequence[int],
    run: Callable[[Sequence[Part]], Iterable],
) -> Float[Tensor, "tasks ranks"]:
    """Return each task's values of these ranks, 1 the largest, among those of some layers.

    ``run`` yields what each part computes, in order.
    """
    bits = bits_of(vectors, names)

    def values(deltas: Float[Tensor, "tasks ..."]) -> Int[Tensor, "tasks entries"]:
        # abs, as the bits of -0.0 are those of a negative number.
        found = rule(deltas).to(bits.real).abs_()
        return found.reshape(len(deltas), -1).view(bits.whole)

    def parts(compute: Callable[[Tensor], object]) -> list[Part]:
        of_values = lambda deltas: compute(values(deltas))  # noqa: E731
        return [part for name in names for part in blocks(vectors, name, of_values)]

    num_entries = sum(vectors[0].shape(name).numel() for name in names)
    below = [num_entries - rank for rank in ranks]  # entries that are below the wanted one
    if num_entries == 0:
        return torch.zeros(len(vectors), len(ranks), dtype=bits.real)
    if num_entries * len(vectors) <= FEW:
        gathered, start = torch.empty(len(vectors), num_entries, dtype=bits.whole), 0
        for found in run(parts(lambda found: found)):
            gathered[:, start : start + found.shape[1]] = found
            start += found.shape[1]
        found = [ranked(of_task, below) for of_task in gathered]
        return torch.tensor(found, dtype=bits.whole).view(bits.real)

    sample = run(sample_parts(vectors, names, SAMPLE / num_entries, values))
    searches = first_searches(list(sample), below, num_entries, len(vectors), bits.largest)
    while left := [[s for s in of_task if not s.settled] for of_task in searches]:
        if not any(left):
            break

        def split(found: Int[Tensor, "tasks entries"], left: list = left) -> list:
            return [
                [within(own, search.low, search.high, search.apart) for search in of_task]
                for own, of_task in zip(found, left, strict=True)
            ]

        for seen in run(parts(split)):
            for of_task, own in zip(left, seen, strict=True):
                for search, found in zip(of_task, own, strict=True):
                    search.see(*found)
        for search in (search for of_task in left for search in of_task):
            search.narrow()
    lows = [[search.low for search in of_task] for of_task in searches]
    return torch.tensor(lows, dtype=bits.whole).view(bits.real)


def sample_parts(
    vectors: Sequence[LazyMapping],
    names: Sequence[str],
    share: float,
    values: Callable[[Tensor], Tensor],
) -> list[Part]:
    """Return parts that read about a share of each layer's rows; none if rows cannot be read."""
    if not all(vector.reads_rows for vector in vectors):
        return []

    def part(name: str) -> Part:
        num_rows = vectors[0].num_rows(name)
        runs = min(RUNS, num_rows)
        length = math.ceil(num_rows * min(share, 1) / runs)
        # In the middle of as many equal pieces.
        starts = [(2 * run + 1) * num_rows // (2 * runs) - length // 2 for run in range(runs)]

        def read() -> list[Tensor]:
            return [
                stacked_rows(vectors, name, start, min(start + length, num_rows))
                for start in (max(start, 0) for start in starts)
            ]

        def compute(pieces: list[Tensor]) -> Tensor:
            return torch.cat([values(piece) for piece in pieces], dim=1).cpu()

        return Part(name, 0, len(vectors) * runs * length, read, compute, entrywise=True)

    return [part(name) for name in names if vectors[0].shape(name).numel()]


def first_searches(
    sample: Sequence[Int[Tensor, "tasks found"]],
    below: Sequence[int],
    num_entries: int,
    num_tasks: int,
    largest: int,
) -> list[list["Search"]]:
    """Return each task's searches, within the bounds that a sample gives, or without one."""
    bins = min(BINS, ALL_BINS // (num_tasks * len(below)))
    together = torch.cat(list(sample), dim=1) if sample else None

    def search(task: int, count: int) -> Search:
        low, high, apart = 0, largest, ()
        if together is not None:
            own, size = together[task], together.shape[1]
            first = math.floor((count / num_entries - MARGIN) * size)
            last = math.ceil((count / num_entries + MARGIN) * size)
            found = ranked(own, [max(first, 0), min(last, size - 1)])
            low, high = found[0] if first >= 0 else 0, found[1] if last < size else largest
            apart = frequent(own, low, high)
        return Search(count, low, high, largest, bins, apart)

    return [[search(task, count) for count in below] for task in range(num_tasks)]


class Search:
    """Bounds of one order statistic, and a histogram of the values within them.

    ``count``: how many values are below the statistic. ``low`` and ``high`` are bounds to try:
    `narrow` finds new ones if the statistic is not within them. Values ``apart``, within the
    bounds, are only counted.
    """

    def __init__(
        self, count: int, low: int, high: int, largest: int, bins: int, apart: Sequence[int] = ()
    ) -> None:
        self._count, self._largest, self._bins = count, largest, bins
        self.settled, self.apart = False, list(apart)
        self._begin(low, high)

    def _begin(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self._shift = max(0, (high - low).bit_length() - (self._bins.bit_length() - 1))
        self._counts = torch.zeros(((high - low) >> self._shift) + 1, dtype=torch.int64)
        self._below, self._waiting, self._num_waiting = 0, [], 0
        self.apart = [value for value in self.apart if low <= value <= high]

    def see(self, num_below: int, apart: list[int], inside: Int[Tensor, " found"]) -> None:
        """Count values: how many are below ``low``, how many apart, and the others, less low."""
        self._below += num_below
        for value, count in zip(self.apart, apart, strict=True):
            self._counts[(value - self.low) >> self._shift] += count
        self._waiting.append(inside)
        self._num_waiting += len(inside)
        if self._num_waiting > BLOCK or len(self._waiting) > MANY:
            self._tally()

    def narrow(self) -> None:
        """Take narrower bounds, or others if all values show that the statistic is elsewhere."""
        self._tally()
        upto = self._counts.cumsum(0)
        if self._count < self._below:
            return self._begin(0, self.low - 1)
        if self._count >= self._below + int(upto[-1]):
            return self._begin(self.high + 1, self._largest)
        found = int(torch.searchsorted(upto, self._count - self._below, right=True))
        low = self.low + (found << self._shift)
        self.settled = self._shift == 0
        self._begin(low, min(self.high, low + (1 << self._shift) - 1))

    def _tally(self) -> None:
        if self._num_waiting:
            bins = torch.cat(self._waiting).cpu() >> self._shift
            self._counts += torch.bincount(bins, minlength=len(self._counts))
        self._waiting, self._num_waiting = [], 0
