"""Model Breadcrumbs: https://arxiv.org/abs/2312.06795."""

import math

from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.knobs import DECIMALS, check_range, check_share
from tsv_bench.task_vectors.lazy import (
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.magnitudes import above, at_least
from tsv_bench.task_vectors.order_statistics import LayerStatistics, magnitudes

__all__ = ["breadcrumbs"]


def breadcrumbs(
    task_vectors: TaskVectors, *, density: float | int = 0.15, outlier_fraction: float | int = 0.006
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

    def ranks(num_entries: int) -> list[int]:
        # Rounded, because 0.07 * 100 is 7.000000000000001.
        num_outliers = math.floor(round(num_entries * outlier_fraction, 6))
        num_kept = math.ceil(round(num_entries * density, 6))
        num_kept = max(1, min(num_kept, num_entries - num_outliers))
        return [num_outliers + num_kept, num_outliers + 1]

    bounds = LayerStatistics(vectors, magnitudes, ranks)

    def parts(name: str) -> list[Part]:
        def rule(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
            return band_pass(deltas, bounds.of(name)).sum(dim=0)

        return blocks(vectors, name, rule)

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def band_pass(
    deltas: Float[Tensor, "tasks ..."], bounds: Float[Tensor, "tasks 2"]
) -> Float[Tensor, "tasks ..."]:
    """Return the entries whose magnitudes are within their task's bounds; zero instead of others.

    The floor(outlier_fraction * entries) largest of a layer become zero, the next ceil(density *
    entries) stay, the rest becomes zero. Entries as large as one that stays do so too.
    """
    smallest, largest = bounds.unbind(dim=1)
    # What is too large is in both, and goes exactly.
    return at_least(deltas, smallest.tolist()).sub_(above(deltas, largest.tolist()))
