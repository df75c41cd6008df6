"""DARE, drop and rescale: https://arxiv.org/abs/2311.03099."""

import hashlib
import logging
from collections.abc import Collection, Mapping
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.entrywise.arithmetic import task_arithmetic
from tsv_bench.methods.entrywise.ties import ties
from tsv_bench.methods.knobs import check_share, check_whole
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    ServedVectors,
    TaskVectors,
    as_lazy,
    widest_dtype,
)

__all__ = ["dare_ta", "dare_ties"]

log = logging.getLogger(__name__)

DRAW = 2**14  # entries that one generator draws for, however many are read at once


def dare_ta(
    task_vectors: TaskVectors, *, density: float | int = 0.5, seed: int = 0
) -> ServedVectors:
    """Serve every task the sum of the task vectors after dropping entries at random.

    ``density`` is the share of entries that survive: 1 minus the paper's drop rate. They are scaled
    by 1 / density. Raises ValueError for a density outside (0, 1], or a seed that is not whole.
    """
    return task_arithmetic(dropped(task_vectors, density, seed))


def dare_ties(
    task_vectors: TaskVectors,
    *,
    density: float | int = 0.5,
    trim_density: float | int = 0.2,
    merge: str = "mean",
    scope: str = "vector",
    seed: int = 0,
) -> ServedVectors:
    """Serve every task the TIES merge of task vectors after dropping entries at random.

    ``density`` is the share of entries that survive the drop, ``trim_density`` the share of all
    entries that TIES then keeps, the largest first, of all layers or of each as ``scope`` says.
    Raises ValueError as `dare_ta` and `ties` do.
    """
    check_share("trim_density", trim_density, "the share of entries that trimming keeps")
    vectors = dropped(task_vectors, density, seed)
    if density <= trim_density < 1:
        _warn_that_nothing_is_trimmed(density, trim_density)
    return ties(vectors, density=trim_density, merge=merge, scope=scope)


def dropped(
    task_vectors: TaskVectors, density: float | int, seed: int
) -> dict[str, "DroppedVector"]:
    """Return the task vectors, lazily, each with its own random drop."""
    check_share("density", density, "the share of entries that survive the drop")
    check_whole("seed", seed, "what the random drops are drawn from")
    return {
        task: DroppedVector(vector, density, f"{seed}/{task}")
        for task, vector in task_vectors.items()
    }


@cache  # warns once, though knobs are checked several times
def _warn_that_nothing_is_trimmed(density: float | int, trim_density: float | int) -> None:
    log.warning(
        "trim_density=%s trims next to nothing of density=%s that survive the drop. Choose a "
        "smaller one, or trim_density=1 for DARE without trimming.",
        trim_density,
        density,
    )


class DroppedVector(LazyMapping):
    """A task vector after a random drop.

    Its entries are kept with probability density, scaled by 1/density, and zero otherwise. Which
    ones are kept depends only on ``key``, the layer's name and the entry's place.
    """

    def __init__(self, vector: Mapping, density: float | int, key: str) -> None:
        self._vector, self._density, self._key = as_lazy(vector), density, key
        self.reads_rows, self.weight = self._vector.reads_rows, self._vector.weight

    @property
    def names(self) -> Collection[str]:
        return self._vector.names

    def shape(self, name: str) -> torch.Size:
        return self._vector.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return widest_dtype([self._vector], name)

    def rows(self, name: str, start: int, stop: int) -> Float[Tensor, "..."]:
        delta = self._vector.rows(name, start, stop)
        return self._drop(delta.to(self.dtype(name), copy=True), name, start)

    def __getitem__(self, name: str) -> Float[Tensor, "..."]:
        return self._drop(self._vector[name].to(self.dtype(name), copy=True), name, 0)

    def read_into(self, name: str, start: int, stop: int, out: Float[Tensor, "..."]) -> None:
        if out.dtype == self.dtype(name):
            self._vector.read_into(name, start, stop, out)
            self._drop(out, name, start)
        else:  # divided in its own type
            super().read_into(name, start, stop, out)

    def rows_together(self, name: str) -> int:
        return self._group(self.shape(name).numel() // max(self.num_rows(name), 1))

    def _drop(self, delta: Float[Tensor, "..."], name: str, start: int) -> Float[Tensor, "..."]:
        """Drop and rescale in place; return the same tensor."""
        rows = delta if delta.ndim else delta[None]
        survivors = self._survivors(name, start, start + len(rows), rows[:1].numel())
        return delta.mul_(survivors.reshape(delta.shape).to(delta)).div_(self._density)

    def _survivors(
        self, name: str, start: int, stop: int, width: int
    ) -> Float[Tensor, "rows width"]:
        """Return 1 for the entries of these rows that survive, 0 for others.

        Each group of rows has a generator of its own, so that the result does not depend on which
        rows are read together.
        """
        step, drawn = self._group(width), torch.empty(stop - start, width)
        for first in range(start // step * step, stop, step):
            digest = hashlib.sha256(f"{self._key}/{name}/{first}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            if start <= first and first + step <= stop:
                drawn[first - start : first - start + step].uniform_(generator=generator)
            else:  # all of the group is drawn for some of its rows
                low, high = max(first, start), min(first + step, stop)
                group = torch.rand(step, width, generator=generator)
                drawn[low - start : high - start] = group[low - first : high - first]
        # Where drawn < density; torch's comparisons take ten times as long.
        return drawn.neg_().add_(self._density).sign_().clamp_(min=0)

    def _group(self, width: int) -> int:
        return max(1, DRAW // max(width, 1))
