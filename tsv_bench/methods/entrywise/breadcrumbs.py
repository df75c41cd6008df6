"""Model Breadcrumbs: https://arxiv.org/abs/2312.06795."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.knobs import DECIMALS, check_range, check_share
from tsv_bench.task_vectors.lazy import (
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    lazy_vectors,
)

__all__ = ["breadcrumbs"]

# Copies of a layer that are alive at most: its delta, magnitudes, their selection with 64-bit
# positions, the sum.
COPIES = 8


def breadcrumbs(
    task_vectors: TaskVectors, *, density: float | int, outlier_fraction: float | int
) -> ServedVectors:
    """The sum of what `crumbs` leaves of the tasks' layers, served to every task."""
    check_share("density", density, "the share of a layer's entries that stay")
    check_range(
        "outlier_fraction", outlier_fraction, 0, round(1 - density, DECIMALS),
        f"the share of a layer's entries that are too large, beside density={density!r} that stay",
    )  # fmt: skip
    vectors = lazy_vectors(task_vectors.values())

    def parts(name: str) -> Sequence[Part]:
        def merge(_: None) -> Tensor:
            # Task by task: a percentile needs the whole layer, and that of all tasks at once may
            # not fit (a vocabulary's embedding).
            deltas = (at_least_float32(vector[name]) for vector in vectors)
            merged = crumbs(next(deltas), density, outlier_fraction)
            for delta in deltas:
                merged = merged + crumbs(delta, density, outlier_fraction)
            return merged

        entries = COPIES * vectors[0].shape(name).numel()
        return [Part(name, 0, entries, lambda: None, merge)]

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def crumbs(
    delta: Float[Tensor, "..."], density: float | int, outlier_fraction: float | int
) -> Float[Tensor, "..."]:
    """One layer without its largest magnitudes, and of the others only the largest.

    floor(outlier_fraction * entries) drop out at the top, ceil(density * entries) stay below them;
    entries that equal one that stays do so too.
    """
    if not delta.any():
        return torch.zeros_like(delta)
    # Rounded, because 0.07 * 100 is 7.000000000000001.
    num_outliers = math.floor(round(delta.numel() * outlier_fraction, 6))
    num_kept = math.ceil(round(delta.numel() * density, 6))
    num_kept = max(1, min(num_kept, delta.numel() - num_outliers))
    magnitudes = delta.abs()
    smallest = _ranked(magnitudes.flatten(), num_outliers + num_kept)
    largest = _ranked(magnitudes[magnitudes >= smallest], num_outliers + 1)
    return delta.masked_fill((magnitudes < smallest) | (magnitudes > largest), 0)


def _ranked(magnitudes: Float[Tensor, " n"], rank: int) -> Tensor:
    """The magnitude of this rank; the largest has rank 1."""
    return magnitudes.kthvalue(len(magnitudes) - rank + 1).values
