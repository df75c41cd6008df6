"""MagMax: https://arxiv.org/abs/2407.06322."""

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.merge import merge_entries

__all__ = ["magmax"]


def magmax(task_vectors: TaskVectors) -> ServedVectors:
    """Serve every task the entries of largest magnitude among the task vectors."""
    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), largest))


def largest(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
    """Return the entries of largest magnitude, with their signs.

    Of two equally large ones with opposite signs the positive one counts. The paper leaves this
    open; its code takes the later task's, which would make the order of the tasks matter.
    """
    highest, lowest = deltas.amax(dim=0), deltas.amin(dim=0)
    return torch.where(highest >= -lowest, highest, lowest)
