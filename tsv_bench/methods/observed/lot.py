"""LOT merging: https://arxiv.org/abs/2505.23859."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.observed.normal_equations import normal_equations
from tsv_bench.methods.observed.observations import Observed, merge_observed
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.statistics import TaskStatistics

__all__ = ["lot"]


def lot(task_vectors: TaskVectors, *, inputs: TaskStatistics) -> ServedVectors:
    """Serve every task linear layers whose outputs are nearest to those of each task's own.

    Of all such deltas it is the smallest: the sum of delta g, for each task's g = x^T x, times the
    pseudo-inverse of the sum of g. What no image of any task reaches stays as pretrained. Layers
    without statistics in every task are averaged.
    """

    def rule(name: str, observed: Iterator[Observed]) -> Float[Tensor, "m n"]:
        return normal_equations(observed, by_count=False).smallest()

    return dict.fromkeys(task_vectors, merge_observed(task_vectors, inputs, rule))
