"""Fisher merging: https://arxiv.org/abs/2111.09832."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.knobs import check_positive, check_switch
from tsv_bench.task_vectors.lazy import (
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
    widest_dtype,
)
from tsv_bench.task_vectors.merge import mean
from tsv_bench.task_vectors.statistics import Statistics, TaskStatistics, as_statistics
from tsv_bench.task_vectors.streaming import stream_parts, watched

__all__ = ["fisher"]


def fisher(
    task_vectors: TaskVectors,
    *,
    fisher: TaskStatistics,
    floor: float | int = 1e-6,
    normalize: bool = True,
) -> ServedVectors:
    """Serve every task the mean of the task vectors, weighted by F + ``floor`` entry by entry.

    F is the diagonal of a task's Fisher information matrix: the mean over images, and over the
    model's own distribution of labels, of a log-probability's squared derivative. The square is of
    one image's derivative: squaring that of a batch's sum, as a well-known implementation does,
    estimates another thing. With ``normalize`` a task's weights are divided by the length of its F
    plus ``floor``, so that no task weighs more for being surer. Where F is zero in all tasks, this
    scale alone weighs them; without it the plain mean results. As all tasks start from the same
    weights, a weighted mean of deltas is one of weights. Layers without F in every task are
    averaged. Raises ValueError for knobs out of range.
    """
    check_positive("floor", floor, "what is added to every entry of F, so that no sum is zero")
    check_switch("normalize", normalize)
    if not task_vectors:
        return {}
    vectors = lazy_vectors(task_vectors.values())
    seen = Diagonals(list(task_vectors), fisher)

    def parts(name: str) -> Sequence[Part]:
        if any(name not in of_task for of_task in seen.statistics):
            return blocks(vectors, name, mean)
        seen.check_shape(name, vectors[0].shape(name))
        scales = [1 / (length + floor) for length in seen.lengths] if normalize else None

        def weighted(both: Float[Tensor, "twice ..."]) -> Float[Tensor, "..."]:
            deltas, f = both.tensor_split(2)
            seen.check_entries(name, f)
            merged = weighted_mean(deltas, f + floor, scales)
            return merged.to(widest_dtype(vectors, name))

        return blocks([*vectors, *seen.statistics], name, weighted)

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def weighted_mean(
    deltas: Float[Tensor, "tasks ..."],
    weights: Float[Tensor, "tasks ..."],
    scales: Sequence[float] | None = None,
) -> Float[Tensor, "..."]:
    """Return the mean over tasks by positive weights, each task's times its scale."""
    if scales is not None:
        largest = max(scales)  # so that a very short F makes no infinity
        ratios = weights.new_tensor([scale / largest for scale in scales])
        weights = weights * ratios.reshape(-1, *[1] * (weights.ndim - 1))
    return (deltas * (weights / weights.sum(dim=0))).sum(dim=0)


class Diagonals:
    """The tasks' F, and the length of each, which is measured once it is wanted."""

    def __init__(self, tasks: Sequence[str], fisher: TaskStatistics) -> None:
        self._tasks, self._fisher = tasks, fisher

    @cached_property
    def statistics(self) -> list[Statistics]:
        """The statistics of every task. Raises ValueError if a task has none."""
        if missing := [task for task in self._tasks if task not in self._fisher]:
            raise ValueError(
                f"there is no Fisher information of {missing[0]}, but of "
                f"{', '.join(self._fisher) or 'no task'}. Gather it for every task."
            )
        return [as_statistics(self._fisher[task]) for task in self._tasks]

    @cached_property
    def lengths(self) -> list[float]:
        """The length of each task's F, all layers together; a pass of its own."""
        return [self._length(task, f) for task, f in zip(self._tasks, self.statistics, strict=True)]

    def _length(self, task: str, of_task: Mapping) -> float:
        parts = [part for name in of_task for part in blocks([of_task], name, _square)]
        found = watched(stream_parts(parts), len(parts), f"Fisher information of {task}")
        return sum(float(square) for _, _, square in found) ** 0.5

    def check_shape(self, name: str, shape: torch.Size) -> None:
        """Raise ValueError unless a layer's F has the layer's shape in every task."""
        for task, of_task in zip(self._tasks, self.statistics, strict=True):
            if of_task.shape(name) != shape:
                raise ValueError(
                    f"the Fisher information of {task} has {name!r} with shape "
                    f"{tuple(of_task.shape(name))}; the layer has {tuple(shape)}. Is it of this "
                    f"backbone?"
                )

    def check_entries(self, name: str, f: Float[Tensor, "tasks ..."]) -> None:
        """Raise ValueError unless some rows of a layer's F are finite and not negative."""
        for task, rows in zip(self._tasks, f, strict=True):
            if not (rows >= 0).all() or rows.isinf().any():
                raise ValueError(
                    f"the Fisher information of {task} has {name!r} with negative entries, NaN or "
                    f"infinity. It is a mean of squares: gather it again."
                )


def _square(rows: Float[Tensor, "1 ..."]) -> Float[Tensor, ""]:
    return rows.square().sum(dtype=torch.float64)
