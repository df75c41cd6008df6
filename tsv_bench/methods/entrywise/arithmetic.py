"""Task Arithmetic, https://arxiv.org/abs/2212.04089, and the baselines that need no knobs."""

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.merge import map_layers, mean, merge_entries

__all__ = ["individual", "task_arithmetic", "weight_average", "zero_shot"]


def zero_shot(task_vectors: TaskVectors) -> ServedVectors:
    """Serve the zero vector to every task: the pretrained model."""
    any_of_them = next(iter(task_vectors.values()), {})
    return dict.fromkeys(task_vectors, map_layers(any_of_them, _zero))


def individual(task_vectors: TaskVectors) -> ServedVectors:
    """Serve each task its own task vector: with alpha 1, its fine-tuned model."""
    return dict(task_vectors)


def weight_average(task_vectors: TaskVectors) -> ServedVectors:
    """Serve the mean of the task vectors to every task: the mean of the fine-tuned models."""
    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), mean))


def task_arithmetic(task_vectors: TaskVectors) -> ServedVectors:
    """Serve the sum of the task vectors to every task."""
    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), total))


def total(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
    """Return the sum over tasks."""
    return deltas.sum(dim=0)


def _zero(name: str, delta: Tensor) -> Tensor:
    return torch.zeros_like(delta)
