"""Order statistics of task vectors, which are never in memory as a whole; exact, to the bit."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.task_vectors.largest_values import Rule, largest_values
from tsv_bench.task_vectors.lazy import LazyMapping, Part, lazy_vectors
from tsv_bench.task_vectors.streaming import stream_parts, watched


def rank_of(share: float | int, num_entries: int) -> int:
    """Return how many of the entries a share is, rounded up; at least one."""
    # Rounded first, because 0.07 * 100 is 7.000000000000001.
    return max(1, math.ceil(round(num_entries * share, 6)))


def magnitudes(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "tasks ..."]:
    """Return the magnitudes of all entries."""
    return deltas.abs()


def trim_thresholds(vectors: Sequence[Mapping], density: float | int) -> list[float]:
    """Return of each vector the smallest of its ceil(density * entries) largest magnitudes.

    All layers of a vector count together, with the entries that fine-tuning left unchanged.
    """
    if not vectors:
        return []
    return order_statistics(vectors, magnitudes, [density], "thresholds")[:, 0].tolist()


def trim_threshold(vector: Mapping, density: float | int) -> float:
    """Return `trim_thresholds` of one vector."""
    return trim_thresholds([vector], density)[0]


def order_statistics(
    vectors: Sequence[Mapping],
    rule: Rule,
    shares: Sequence[float | int],
    label: str = "order of entries",
) -> Float[Tensor, "tasks shares"]:
    """Return for each task the smallest of its ceil(share * entries) largest values, exactly.

    ``rule`` maps stacked deltas [tasks, rows, ...] to values of the same shape, none negative. All
    layers of a task count together; a share of 0 is the largest value.
    """
    vectors = lazy_vectors(vectors)
    names = list(vectors[0].names)
    num_entries = sum(vectors[0].shape(name).numel() for name in names)

    def shown(parts: Sequence[Part]) -> Iterator:
        # No type parameter: the run-time check of it would take the first item.
        return watched((found for *_, found in stream_parts(parts)), len(parts), label)

    ranks = [rank_of(share, num_entries) for share in shares]
    return largest_values(vectors, names, rule, ranks, shown)


class LayerStatistics:
    """Order statistics of each task's layers, computed when first wanted, each once.

    For rules that `blocks` apply side by side: each thread that wants a layer's computes those of
    one task after the other, until there are all.
    """

    def __init__(
        self, vectors: Sequence[LazyMapping], rule: Rule, ranks: Callable[[int], Sequence[int]]
    ) -> None:
        """``ranks``: number of a layer's entries -> the ranks of what is wanted, 1 the largest."""
        self._vectors, self._rule, self._ranks = vectors, rule, ranks
        self._found: dict[str, list[Future]] = {}
        self._unclaimed: dict[str, list[int]] = {}
        self._lock = Lock()

    def of(self, name: str) -> Float[Tensor, "tasks ranks"]:
        """Return the layer's statistics."""
        with self._lock:
            if name not in self._found:
                self._found[name] = [Future() for _ in self._vectors]
                self._unclaimed[name] = list(range(len(self._vectors)))
        while True:
            with self._lock:
                if not self._unclaimed[name]:
                    break
                task = self._unclaimed[name].pop()
            try:
                self._found[name][task].set_result(self._of_task(name, task))
            except BaseException as error:
                self._found[name][task].set_exception(error)
                raise
        return torch.stack([future.result() for future in self._found[name]])

    def _of_task(self, name: str, task: int) -> Float[Tensor, " ranks"]:
        vector = self._vectors[task]
        ranks = self._ranks(vector.shape(name).numel())
        one_thread = lambda parts: (part.compute(part.read()) for part in parts)  # noqa: E731
        return largest_values([vector], [name], self._rule, ranks, one_thread)[0]
