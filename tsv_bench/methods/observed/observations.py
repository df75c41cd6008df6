"""The deltas of a layer beside what was seen of its inputs, one task at a time."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import all_finite, at_least_float32
from tsv_bench.task_vectors.lazy import (
    LazyVector,
    Part,
    TaskVectors,
    blocks,
    lazy_vectors,
    widest_dtype,
)
from tsv_bench.task_vectors.merge import mean
from tsv_bench.task_vectors.statistics import Statistics, TaskStatistics, as_statistics

log = logging.getLogger(__name__)

ASYMMETRY = 1e-4  # the most by which entries that mirror each other differ, of the matrix's norm
WORK = 4  # memory that a layer takes in its computation, in float32 copies of it and of its Gram


@dataclass(frozen=True)
class Observed:
    """One task in one layer: its delta, outputs by inputs, and x^T x of the inputs x."""

    delta: Float[Tensor, "m n"]
    gram: Float[Tensor, "n n"]
    count: int | None  # of inputs; None: unknown


class Observations:
    """All tasks' deltas and statistics of their inputs. Nothing is read until a layer is wanted.

    `vectors` holds the task vectors, in the order of the tasks.
    """

    def __init__(self, task_vectors: TaskVectors, inputs: TaskStatistics) -> None:
        """Raises ValueError if the vectors' layers differ."""
        self.vectors = lazy_vectors(task_vectors.values())
        self._tasks, self._inputs = list(task_vectors), inputs

    @cached_property
    def _statistics(self) -> dict[str, Statistics]:
        if missing := [task for task in self._tasks if task not in self._inputs]:
            raise ValueError(
                f"there are no statistics of the inputs of {missing[0]}, but of "
                f"{', '.join(self._inputs) or 'no task'}. Gather them for every task."
            )
        return {task: as_statistics(self._inputs[task]) for task in self._tasks}

    @cached_property
    def layers(self) -> frozenset[str]:
        """The names of the matrices of which every task has statistics."""
        found = frozenset(
            name
            for name in self.vectors[0]
            if len(self.vectors[0].shape(name)) == 2
            and all(name in of_task for of_task in self._statistics.values())
        )
        if not found:
            log.warning(
                "no layer has statistics of its inputs in every task: all are merged as layers "
                "without. Are the statistics of the same backbone?"
            )
        return found

    def axis(self, name: str) -> int:
        """Return the axis of a layer's weight along which its inputs run.

        Raises ValueError if the tasks do not agree on it.
        """
        axes = {task: of_task.gathered(name).axis for task, of_task in self._statistics.items()}
        if len(set(axes.values())) > 1 or not set(axes.values()) <= {0, 1}:
            raise ValueError(
                f"the inputs of {name!r} run along axis 0 or 1 of its weight, the same for all "
                f"tasks; the statistics say {axes}. Gather them again."
            )
        return next(iter(axes.values()))

    def each(self, name: str) -> Iterator[Observed]:
        """Yield every task's delta and statistics of a layer; one task is in memory at a time.

        Raises ValueError for statistics that are none of this layer's inputs.
        """
        axis = self.axis(name)
        for vector, (task, of_task) in zip(self.vectors, self._statistics.items(), strict=True):
            delta = at_least_float32(vector[name])
            delta = delta if axis == 1 else delta.mT
            gram = of_task[name]
            check_gram(gram, delta.shape[1], f"the statistics of {task} have {name!r}")
            count = of_task.gathered(name).count
            if count is not None and count < 1:
                raise ValueError(f"the statistics of {task} have {name!r} of {count} inputs.")
            yield Observed(delta, gram.to(delta.device), count)

    def parts(self, name: str, rule: Callable[[Iterator[Observed]], Tensor]) -> list[Part]:
        """Return the part that computes a layer by a rule from all that is observed of it.

        The rule returns outputs by inputs. It is what reads: only one task's delta and statistics
        are in memory then, where a part's own reading ahead would hold all.
        """
        shape = self.vectors[0].shape(name)

        def compute(observed: Iterator[Observed]) -> Tensor:
            found = rule(observed)
            found = found if self.axis(name) == 1 else found.mT
            return found.to(widest_dtype(self.vectors, name)).contiguous()

        num_entries = WORK * (shape.numel() + shape[self.axis(name)] ** 2)
        return [Part(name, 0, num_entries, lambda: self.each(name), compute)]


def merge_observed(
    task_vectors: TaskVectors,
    inputs: TaskStatistics,
    rule: Callable[[str, Iterator[Observed]], Tensor],
) -> LazyVector:
    """Merge task vectors into one by a rule for layers with statistics; others are averaged.

    ``rule`` takes the layer's name and what is observed of each task, and returns outputs by
    inputs. A layer has statistics if it is a matrix and every task has them. Raises ValueError if
    the vectors' layers differ.
    """
    seen = Observations(task_vectors, inputs)

    def parts(name: str) -> Sequence[Part]:
        if name not in seen.layers:
            return blocks(seen.vectors, name, mean)
        return seen.parts(name, lambda observed: rule(name, observed))

    return LazyVector(seen.vectors, parts)


def oriented(vector: Mapping, name: str, axis: int) -> Float[Tensor, "m n"]:
    """Return a layer of another vector as outputs by inputs, in float64."""
    return (vector[name] if axis == 1 else vector[name].mT).double()


def check_gram(gram: Tensor, num_inputs: int, what: str) -> None:
    """Raise ValueError unless the tensor can be x^T x of this many inputs; ``what`` begins it."""
    if gram.shape != (num_inputs, num_inputs):
        raise ValueError(
            f"{what} with shape {tuple(gram.shape)}; its {num_inputs} inputs make it "
            f"{(num_inputs, num_inputs)}. Are they of this backbone?"
        )
    if not gram.is_floating_point() or not all_finite(gram):
        raise ValueError(f"{what} with entries that are no finite numbers. Gather them again.")
    # A pair of entries that differ shows in the products: a transposed copy takes far longer.
    probe = torch.linspace(1, 2, num_inputs, dtype=gram.dtype, device=gram.device)
    apart = (gram @ probe - probe @ gram).abs().max() if num_inputs else 0
    if apart > ASYMMETRY * gram.norm() or (gram.diagonal() < 0).any():
        raise ValueError(
            f"{what} as a matrix that is not x^T x of any x: it is not symmetric, or has a "
            f"negative diagonal. Gather them again."
        )
