"""Task arithmetic, https://arxiv.org/abs/2212.04089, and the rows it is compared with."""

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.merge import map_layers, mean, merge_entries

__all__ = ["individual", "task_arithmetic", "weight_average", "zero_shot"]


def zero_shot(task_vectors: TaskVectors) -> ServedVectors:
    """The zero vector, served to every task: the pretrained model."""
    any_of_them = next(iter(task_vectors.values()), {})
    return dict.fromkeys(task_vectors, map_layers(any_of_them, _zero))


def individual(task_vectors: TaskVectors) -> ServedVectors:
    """Each task's own task vector: its fine-tuned model, when alpha is 1."""
    return dict(task_vectors)


def weight_average(task_vectors: TaskVectors) -> ServedVectors:
    """The mean of the task vectors, served to every task: the mean of the fine-tuned models."""
    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), mean))


def task_arithmetic(task_vectors: TaskVectors) -> ServedVectors:
    """The sum of the task vectors, all parameters, served to every task."""
    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), total))


def total(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
    return deltas.sum(dim=0)


def _zero(name: str, delta: Tensor) -> Tensor:
    return torch.zeros_like(delta)
