"""MagMax: https://arxiv.org/abs/2407.06322."""

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.merge import merge_entries

__all__ = ["magmax"]


def magmax(task_vectors: TaskVectors) -> ServedVectors:
    """Of every entry the task's that moved it furthest, served to every task."""
    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), furthest))


def furthest(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
    """The entries of largest magnitude, with their signs.

    Of two that are as large with opposite signs the positive one: the paper leaves the choice open,
    its code takes the later task's, which would depend on the order of the tasks.
    """
    highest, lowest = deltas.amax(dim=0), deltas.amin(dim=0)
    return torch.where(highest >= -lowest, highest, lowest)
