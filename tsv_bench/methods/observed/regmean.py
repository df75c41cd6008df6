"""RegMean: https://arxiv.org/abs/2212.09849."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.knobs import check_range
from tsv_bench.methods.observed.normal_equations import normal_equations
from tsv_bench.methods.observed.observations import Observed, merge_observed
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.statistics import TaskStatistics

__all__ = ["regmean"]


def regmean(
    task_vectors: TaskVectors, *, inputs: TaskStatistics, off_diagonal: float | int = 0.95
) -> ServedVectors:
    """Serve every task linear layers whose outputs are nearest to those of each task's own.

    ``off_diagonal`` in [0, 1] scales each task's x^T x beside its diagonal. As all tasks start from
    the same weights, merging deltas is merging weights. Layers without statistics in every task
    are averaged. Raises ValueError for a knob out of range.
    """
    check_range(
        "off_diagonal", off_diagonal, 0, 1,
        "by what x^T x is scaled beside its diagonal; 1 leaves it as it is",
    )  # fmt: skip

    def rule(name: str, observed: Iterator[Observed]) -> Float[Tensor, "m n"]:
        sums = normal_equations(observed, off_diagonal)
        # Where no image of any task has a component nothing is known of the outputs: the mean.
        return sums.nearest_to(sums.mean)

    return dict.fromkeys(task_vectors, merge_observed(task_vectors, inputs, rule))
