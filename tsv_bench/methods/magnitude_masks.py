"""Magnitude masking, the baseline of TALL masks: https://arxiv.org/abs/2405.07813."""

from collections.abc import Mapping
from functools import partial

from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.arithmetic import total
from tsv_bench.methods.shares import check_share
from tsv_bench.methods.sign_election import trim_thresholds
from tsv_bench.streaming import LazyVector, blocks
from tsv_bench.task_vectors import TaskVectors, same_layers


def magnitude_mask(
    task_vectors: TaskVectors, *, density: float | int
) -> Mapping[str, Mapping[str, Tensor]]:
    """Each task is served the sum of the task vectors where its own is large: it must be known.

    ``density`` is the share of the whole task vector's entries that a mask keeps, the largest.
    """
    check_share("density", density, "that a mask keeps")
    vectors = list(task_vectors.values())
    names = same_layers(vectors)
    # A pass of its own: a mask's threshold is that of a whole task vector.
    thresholds = trim_thresholds(vectors, density)

    def served(index: int) -> LazyVector:
        rule = partial(masked_sum, index=index, threshold=thresholds[index])
        return LazyVector(names, lambda name: blocks(vectors, name, rule))

    return {task: served(index) for index, task in enumerate(task_vectors)}


def masked_sum(
    deltas: Float[Tensor, "tasks ..."], index: int, threshold: float
) -> Float[Tensor, "..."]:
    """The sum of the tasks where one of them is not below its threshold, and not zero."""
    magnitudes = deltas[index].abs()
    return total(deltas).masked_fill_((magnitudes < threshold) | (magnitudes == 0), 0)
