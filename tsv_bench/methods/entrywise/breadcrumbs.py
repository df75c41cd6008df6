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

# Copies of a layer that are in memory at most: its delta, the magnitudes, their selection with
# 64-bit positions, the sum.
COPIES = 8


def breadcrumbs(
    task_vectors: TaskVectors, *, density: float | int, outlier_fraction: float | int
) -> ServedVectors:
    """Serve every task the sum of the tasks' layers without their outliers and small entries.

    Of each layer the ``outlier_fraction`` largest entries drop out, the next ``density`` stay: see
    `band_pass`. Raises ValueError if a knob is not a share or both are more than 1 together.
    """
    check_share("density", density, "the share of a layer's entries that stay")
    check_range(
        "outlier_fraction", outlier_fraction, 0, round(1 - density, DECIMALS),
        f"the share of a layer's entries that are too large, beside density={density!r} that stay",
    )  # fmt: skip
    vectors = lazy_vectors(task_vectors.values())

    def parts(name: str) -> Sequence[Part]:
        def merge(_: None) -> Tensor:
            # Task by task: a percentile needs the whole layer, and a large one (a vocabulary's
            # embedding) may not fit into memory for all tasks at once.
            deltas = (at_least_float32(vector[name]) for vector in vectors)
            merged = band_pass(next(deltas), density, outlier_fraction)
            for delta in deltas:
                merged = merged + band_pass(delta, density, outlier_fraction)
            return merged

        entries = COPIES * vectors[0].shape(name).numel()
        return [Part(name, 0, entries, lambda: None, merge)]

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def band_pass(
    delta: Float[Tensor, "..."], density: float | int, outlier_fraction: float | int
) -> Float[Tensor, "..."]:
    """Keep the entries of one layer whose magnitude is neither too large nor too small.

    The floor(outlier_fraction * entries) largest become zero, the next ceil(density * entries)
    stay, the rest becomes zero. Entries as large as one that stays do so too.
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
    """Return the magnitude of this rank; the largest has rank 1."""
    return magnitudes.kthvalue(len(magnitudes) - rank + 1).values
