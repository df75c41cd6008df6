"""PCB-Merging (parameter competition balancing): https://arxiv.org/abs/2410.02396."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tsv_bench.streaming import BLOCK, LazyVector, Part, blocks, shape_of, stream, watched
from tsv_bench.task_vectors import TaskVectors, dtype_of, merge_entries, same_layers

CLAMPED = 1e-4  # share of entries at either end whose magnitude is clamped; authors' code
DIGIT = 16  # bits that one pass settles
MANY = 32  # tensors that wait to be counted: however small, they split the memory around them
SMALLEST = 1e-12  # sum of scores that is divided by; authors' code


def pcb(task_vectors: TaskVectors, *, density: float | int) -> Mapping[str, Mapping[str, Tensor]]:
    """The mean of all task vectors, every entry weighted by its score; one vector for all tasks.

    A score says how large the entry is within its task and how far it agrees with the others;
    ``density`` is the share of a task's entries, in (0, 1], whose score stays above zero.
    """
    if not isinstance(density, int | float) or not 0 < density <= 1:
        raise ValueError(
            f"density={density!r} is not in (0, 1]: it is the share of entries that keep a score."
        )
    vectors = list(task_vectors.values())
    if not vectors:
        return {}
    # Passes of their own: ranges of whole task vectors, which are never in memory.
    ends = order_statistics(vectors, lambda deltas: deltas.abs(), [1 - CLAMPED, CLAMPED])
    scores = partial(balances, ends=ends)
    kept = order_statistics(vectors, lambda deltas: scores(deltas).clamp_(min=0), [density, 0])
    rule = partial(merge_balanced, ends=ends, kept=kept)
    return dict.fromkeys(task_vectors, merge_entries(vectors, rule))


def balances(
    deltas: Float[Tensor, "tasks ..."], ends: Float[Tensor, "tasks 2"]
) -> Float[Tensor, "tasks ..."]:
    """Every entry's score, the product of two; paper, Equations 2 and 3.

    exp(tasks * x^2), x the magnitude as a share of the task's range ``ends``, and the tanh of the
    entry times the sum over tasks: below zero where it has another sign than the sum.
    """
    low, high = columns(ends, deltas)
    share = clamp(deltas.abs(), low, high).sub_(low).div_(positive(high - low))
    within = share.square_().mul_(len(deltas)).exp_()
    across = deltas * deltas.sum(dim=0)
    # Of what is smaller tanh is x itself to the last bit: x^2 / 3 is a twelfth of a unit in it. So
    # are all products of fine-tuning, and tanh would be half of the time.
    smallest = math.sqrt(torch.finfo(across.dtype).eps) / 2
    if across.numel() and max(map(abs, torch.stack(across.aminmax()).tolist())) > smallest:
        across.tanh_()
    return within.mul_(across)


def merge_balanced(
    deltas: Float[Tensor, "tasks ..."],
    ends: Float[Tensor, "tasks 2"],
    kept: Float[Tensor, "tasks 2"],
) -> Float[Tensor, "..."]:
    """The mean of clamped entries, weighted by their scores' place in the range ``kept``."""
    low, high = columns(kept, deltas)
    scores = clamp(balances(deltas, ends), low, high).sub_(low).div_(positive(high - low))
    clamped = clamp(deltas.abs(), *columns(ends, deltas)).mul_(deltas.sign())
    return clamped.mul_(scores).sum(dim=0).div_(scores.sum(dim=0).clamp_(min=SMALLEST))


def columns(
    pairs: Float[Tensor, "tasks 2"], deltas: Float[Tensor, "tasks ..."]
) -> tuple[Tensor, Tensor]:
    """The low and the high end of each task, in a shape that broadcasts over its deltas."""
    low, high = pairs.to(deltas).unbind(dim=1)
    shape = -1, *[1] * (deltas.ndim - 1)
    return low.reshape(shape), high.reshape(shape)


def clamp(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``values.clamp_(low, high)``, which is four times slower with a bound for each task."""
    torch.maximum(values, low, out=values)
    return torch.minimum(values, high, out=values)


def positive(width: Tensor) -> Tensor:
    """Where low and high are one, nothing is above low: zero over one."""
    return torch.where(width > 0, width, 1.0)


def order_statistics(
    vectors: Sequence[Mapping[str, Tensor]],
    rule: Callable[[Tensor], Tensor],
    shares: Sequence[float | int],
) -> Float[Tensor, "tasks shares"]:
    """Of each task the smallest of its ceil(share * entries) largest values; exact.

    ``rule`` makes values, none below zero, of stacked deltas; at least one counts. All layers of
    a task together, never in memory: the bits of such values, read as whole numbers, are in the
    same order, so that a histogram of the leading ones tells which of these the answer has.
    """
    names = same_layers(vectors)
    num_entries = sum(shape_of(vectors[0], name).numel() for name in names)
    wide = any(dtype_of(vector, name) == torch.float64 for vector in vectors for name in names)
    bits, whole, real = (
        (64, torch.int64, torch.float64) if wide else (32, torch.int32, torch.float32)
    )
    # Rounded, because 0.07 * 100 is 7.000000000000001.
    ranks = [max(1, math.ceil(round(num_entries * share, 6))) for share in shares]
    below = torch.tensor([[num_entries - rank for rank in ranks]] * len(vectors))
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

        for _, _, seen in counted(vectors, names, digits, f"order of entries, {bits} bits"):
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
    vectors: Sequence[Mapping[str, Tensor]],
    names: Sequence[str],
    rule: Callable[[Tensor], list],
    label: str,
) -> Iterable:  # not of what: a type checker would take the first
    """What ``rule`` makes of each part of the vectors, one part after the other."""

    def parts(name: str) -> list[Part]:
        return blocks(vectors, name, rule)

    return watched(stream(LazyVector(names, parts)), sum(len(parts(n)) for n in names), label)
