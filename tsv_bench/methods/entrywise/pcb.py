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

CLAMPED = 1e-4  # share of entries whose magnitude is clamped, at either end; authors' code
MOST_TASKS = 88  # exp(89) is beyond float32
SMALLEST = 1e-12  # lower bound of the sum of scores, which is a divisor; authors' code


def pcb(task_vectors: TaskVectors, *, density: float | int = 0.05) -> ServedVectors:
    """Serve every task the mean of the task vectors, each entry weighted by its score.

    The score says how large an entry is within its task and how far it agrees with other tasks.
    ``density`` is the share of a task's entries, in (0, 1], whose score stays above zero. Raises
    ValueError for another one, and for more than 88 tasks.
    """
    check_share("density", density, "the share of entries that keep a score")
    if len(task_vectors) > MOST_TASKS:
        raise ValueError(
            f"PCB-Merging of {len(task_vectors)} tasks: its scores, which reach exp(tasks), leave "
            f"float32. Merge at most {MOST_TASKS} tasks, or choose another method."
        )
    vectors = lazy_vectors(task_vectors.values())
    if not vectors:
        return {}
    # These take passes of their own: they are ranges of whole task vectors.
    ends = order_statistics(vectors, lambda deltas: deltas.abs(), [1 - CLAMPED, CLAMPED])
    scores = partial(balances, ends=ends)
    kept = order_statistics(vectors, lambda deltas: scores(deltas).clamp_(min=0), [density, 0])
    rule = partial(merge_balanced, ends=ends, kept=kept)
    return dict.fromkeys(task_vectors, merge_entries(vectors, rule))


def balances(
    deltas: Float[Tensor, "tasks ..."], ends: Float[Tensor, "tasks 2"]
) -> Float[Tensor, "tasks ..."]:
    """Return every entry's score, a product of two; paper, Equations 2 and 3.

    The first is exp(tasks * x^2), where x is the magnitude as a share of the task's range ``ends``.
    The second is tanh(entry * sum over tasks), negative where the entry opposes the sum.
    """
    low, high = columns(ends, deltas)
    share = clamp(deltas.abs(), low, high).sub_(low).div_(positive(high - low))
    within = share.square_().mul_(len(deltas)).exp_()
    across = deltas * deltas.sum(dim=0)
    # Up to this magnitude tanh(x) is x to the last bit: its error x^3 / 3 is a twelfth of a unit in
    # the last place. All products of fine-tuned deltas are that small, and tanh would take half of
    # the time.
    smallest = math.sqrt(torch.finfo(across.dtype).eps) / 2
    if across.numel() and max(map(abs, torch.stack(across.aminmax()).tolist())) > smallest:
        across.tanh_()
    return within.mul_(across)


def merge_balanced(
    deltas: Float[Tensor, "tasks ..."],
    ends: Float[Tensor, "tasks 2"],
    kept: Float[Tensor, "tasks 2"],
) -> Float[Tensor, "..."]:
    """Return the mean of clamped entries, weighted by where scores lie in the range ``kept``."""
    low, high = columns(kept, deltas)
    scores = clamp(balances(deltas, ends), low, high).sub_(low).div_(positive(high - low))
    clamped = clamp(deltas.abs(), *columns(ends, deltas)).mul_(deltas.sign())
    return clamped.mul_(scores).sum(dim=0).div_(scores.sum(dim=0).clamp_(min=SMALLEST))


def columns(
    pairs: Float[Tensor, "tasks 2"], deltas: Float[Tensor, "tasks ..."]
) -> tuple[Tensor, Tensor]:
    """Return each task's low and high end, in a shape that broadcasts over its deltas."""
    low, high = pairs.to(deltas).unbind(dim=1)
    shape = -1, *[1] * (deltas.ndim - 1)
    return low.reshape(shape), high.reshape(shape)


def clamp(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return ``values.clamp_(low, high)``, which is four times slower with bounds for each task."""
    torch.maximum(values, low, out=values)
    return torch.minimum(values, high, out=values)


def positive(width: Tensor) -> Tensor:
    """Return the width, or 1 where it is zero: nothing is above low there, and 0 / 1 is 0."""
    return torch.where(width > 0, width, 1.0)
