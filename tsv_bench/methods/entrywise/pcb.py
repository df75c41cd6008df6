"""PCB-Merging (parameter competition balancing): https://arxiv.org/abs/2410.02396."""

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.knobs import check_share
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors, lazy_vectors
from tsv_bench.task_vectors.merge import merge_entries
from tsv_bench.task_vectors.order_statistics import order_statistics

__all__ = ["pcb"]

CLAMPED = 1e-4  # share of entries at either end whose magnitude is clamped; authors' code
SMALLEST = 1e-12  # sum of scores that is divided by; authors' code


def pcb(task_vectors: TaskVectors, *, density: float | int) -> ServedVectors:
    """The mean of all task vectors, every entry weighted by its score; one vector for all tasks.

    A score says how large the entry is within its task and how far it agrees with the others;
    ``density`` is the share of a task's entries, in (0, 1], whose score stays above zero.
    """
    check_share("density", density, "the share of entries that keep a score")
    vectors = lazy_vectors(task_vectors.values())
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
