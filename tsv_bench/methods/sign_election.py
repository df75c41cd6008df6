"""TIES-Merging: https://arxiv.org/abs/2306.01708."""

import math
from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg import at_least_float32
from tsv_bench.task_vectors import TaskVectors, merge_layers

MERGES = ("mean", "sum")


def ties(
    task_vectors: TaskVectors, *, density: float | int, merge: str = "mean"
) -> Mapping[str, Mapping[str, Tensor]]:
    """Trim every task vector, elect a sign for every entry, merge what agrees; one for all tasks.

    ``density`` is the share of a task vector's entries that trimming keeps, in (0, 1]; ``merge``
    says how agreeing entries become one: their "mean" (the paper's) or "sum".
    """
    if not isinstance(density, int | float) or not 0 < density <= 1:
        raise ValueError(
            f"density={density!r} is not in (0, 1]: it is the share of entries that trimming keeps."
        )
    if merge not in MERGES:
        raise ValueError(f"merge={merge!r} is not a way to merge what agrees: {MERGES}.")
    # A pass of its own: one threshold for a whole task vector, and one vector in memory.
    thresholds = [trim_threshold(vector, density) for vector in task_vectors.values()]
    rule = partial(merge_agreeing, thresholds=thresholds, merge=merge)
    return dict.fromkeys(task_vectors, merge_layers(task_vectors.values(), rule, rule))


def trim_threshold(vector: Mapping[str, Tensor], density: float | int) -> float:
    """The smallest magnitude kept, if ceil(density * entries) are; all that equal it are kept.

    Over all layers together, entries that fine-tuning left alone included.
    """
    parts = [at_least_float32(delta).abs().flatten().cpu() for delta in vector.values()]
    magnitudes = torch.cat(parts).numpy()
    del parts
    # Rounded, because 0.07 * 100 is 7.000000000000001.
    trimmed = len(magnitudes) - math.ceil(round(len(magnitudes) * density, 6))
    # numpy's partition works in place; torch.kthvalue would add an int64 index for each entry.
    magnitudes.partition(trimmed)
    return float(magnitudes[trimmed])


def merge_agreeing(
    deltas: Float[Tensor, "tasks ..."], thresholds: list[float], merge: str
) -> Float[Tensor, "..."]:
    """Merge one layer: entries below their task's threshold, or against the elected sign, drop out.

    The elected sign is that of the sum of what trimming kept; entries that cancel exactly elect
    none and become zero.
    """
    column = deltas.new_tensor(thresholds).reshape(-1, *[1] * (deltas.ndim - 1))
    kept = torch.where(deltas.abs() >= column, deltas, 0)
    agreeing = torch.where(kept * kept.sum(dim=0).sign() > 0, kept, 0)
    if merge == "sum":
        return agreeing.sum(dim=0)
    return agreeing.sum(dim=0) / agreeing.count_nonzero(dim=0).clamp(min=1)
