"""A weight a task, for methods that sum what tasks contribute."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tsv_bench.task_vectors.lazy import OtherLayers, Triplets, widest_dtype


class Weighted:
    """A method whose task vectors are multiplied by weights before it sees them.

    ``rule``: "scale" by the weights as they are, so that a sum is a weighted sum; "relative" by
    the weights over their mean, so that a mean is a weighted mean, and equal weights change
    nothing.
    """

    def __init__(self, serve: Callable, weights: Mapping[str, float | int], rule: str) -> None:
        self.serve, self.weights = serve, dict(weights)
        # What warns of knobs looks for them where a partial has them.
        self.keywords = getattr(serve, "keywords", {})
        mean = sum(weights.values()) / len(weights) if rule == "relative" else 1
        self._factors = {task: weight / mean for task, weight in weights.items()}

    def __call__(self, task_vectors: Mapping[str, Mapping], **given: Any) -> Mapping:
        """Serve the weighted vectors. A task without a weight, as a made-up one, counts as 1."""
        return self.serve(
            {t: scaled(vector, self._factors.get(t, 1)) for t, vector in task_vectors.items()},
            **given,
        )


def scaled(vector: Mapping, factor: float | int) -> Mapping:
    """Return the vector times a factor, row by row; at 1 it is the vector itself."""
    return vector if factor == 1 else ScaledVector(vector, factor)


class ScaledVector(OtherLayers):
    """A task vector times its task's weight, in float32 at least."""

    def __init__(self, vector: Mapping, weight: float | int) -> None:
        super().__init__(vector)
        self.weight = weight

    def dtype(self, name: str) -> torch.dtype:
        return widest_dtype([self._layers], name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        return self._layers.rows(name, start, stop).to(self.dtype(name)) * self.weight

    def __getitem__(self, name: str) -> Tensor:
        return self._layers[name].to(self.dtype(name)) * self.weight

    def read_into(self, name: str, start: int, stop: int, out: Tensor) -> None:
        self._layers.read_into(name, start, stop, out)
        out.mul_(self.weight)

    def rows_together(self, name: str) -> int:
        return self._layers.rows_together(name)

    def recall(self, name: str, rank: int, kind: str) -> Triplets | None:
        found = self._layers.recall(name, rank, kind) if self.weight > 0 else None
        return found and (found[0], found[1] * self.weight, found[2])

    def keep(self, name: str, triplets: Triplets, kind: str) -> None:
        if self.weight > 0:
            u, s, vh = triplets
            self._layers.keep(name, (u, s / self.weight, vh), kind)

    def factor_rank(self, name: str) -> int | None:
        return self._layers.factor_rank(name)

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        found = self._layers.factors(name)
        return found and (found[0] * self.weight, found[1])

    def rank_ahead(self, full_rank: int) -> int:
        return self._layers.rank_ahead(full_rank)
