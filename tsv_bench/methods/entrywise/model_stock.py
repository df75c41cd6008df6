"""Model Stock: https://arxiv.org/abs/2403.19522."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.task_vectors.lazy import (
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    lazy_vectors,
)

__all__ = ["model_stock"]

# Copies of a layer that are in memory at most: its delta, the same at length 1, the two sums.
COPIES = 4


def model_stock(task_vectors: TaskVectors) -> ServedVectors:
    """Serve every task the mean of the task vectors, each layer as near to zero as tasks differ.

    A layer's mean is multiplied by the `ratio` that follows from the angles between its deltas.
    """
    vectors = lazy_vectors(task_vectors.values())

    def parts(name: str) -> Sequence[Part]:
        def merge(_: None) -> Tensor:
            # Task by task: angles need the whole layer, and a large one (a vocabulary's embedding)
            # may not fit into memory for all tasks at once.
            return shrunk_mean(vector[name] for vector in vectors)

        entries = COPIES * vectors[0].shape(name).numel()
        return [Part(name, 0, entries, lambda: None, merge)]

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def shrunk_mean(deltas: Iterable[Tensor]) -> Float[Tensor, "..."]:
    """Return the mean of one layer's deltas, times their `ratio`; reads one delta at a time.

    The mean cosine of all pairs follows from the sum of the deltas at length 1: its square is the
    number of tasks plus the cosines of all ordered pairs. A task that did not change the layer has
    no direction, and its cosine with others counts as zero.
    """
    num_tasks = num_changed = 0
    total = directions = None
    for delta in map(at_least_float32, deltas):
        length = _length(delta)
        if total is None:
            total, directions = torch.zeros_like(delta), torch.zeros_like(delta)
        num_tasks += 1
        if length:
            num_changed += 1
            total = total + delta  # not in place: a later one may be of a wider type
            directions = directions + delta / length
    pairs = num_tasks * (num_tasks - 1)
    cosine = (_length(directions) ** 2 - num_changed) / pairs if pairs else 1.0
    return total * (ratio(cosine, num_tasks) / num_tasks)


def ratio(cosine: float, num_tasks: int) -> float:
    """Return N c / (1 + (N - 1) c): how far towards the mean of N tasks with mean cosine c.

    Never below zero, which is also the limit where c is zero: of tasks that pull apart (c < 0)
    nothing is served, where the formula would lead away from their mean.
    """
    return num_tasks * cosine / (1 + (num_tasks - 1) * cosine) if cosine > 0 else 0.0


def _length(delta: Tensor) -> float:
    """Return the Euclidean length in float64: squares of float32 may overflow or vanish."""
    return float(torch.linalg.vector_norm(delta, dtype=torch.float64))
