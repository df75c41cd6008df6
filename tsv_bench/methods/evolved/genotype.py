"""Genotypes: the numbers of a candidate, one for each task, or for each task and depth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from tsv_bench.task_vectors.places import relative_depths

BY = ("task", "depth")


@dataclass(frozen=True)
class Genotype:
    """How the genes of a candidate become the numbers of a layer.

    ``columns`` are what has a number: the tasks. Layers of equal depth share theirs: there are
    ``num_groups`` groups of depths, each an equal share of a stack of blocks. What lies outside of
    any stack belongs to the first.
    """

    columns: Sequence[str]
    layers: Sequence[str]
    num_groups: int

    @property
    def num_genes(self) -> int:
        return self.num_groups * len(self.columns)

    def numbers(self, genes: Float[Tensor, " genes"]) -> Callable[[str], Tensor]:
        """Return a function of a layer's name that returns its numbers, [columns]."""
        table = genes.reshape(self.num_groups, len(self.columns))
        return lambda name: table[self._group[name]]

    def plain(self, genes: Float[Tensor, " genes"]) -> list[dict[str, float]]:
        """Return for each group the column -> its number, for readers."""
        table = genes.reshape(self.num_groups, len(self.columns)).tolist()
        return [dict(zip(self.columns, row, strict=True)) for row in table]

    @cached_property
    def _group(self) -> dict[str, int]:
        last = self.num_groups - 1
        return {
            name: min(int(depth * self.num_groups), last)
            for name, depth in relative_depths(self.layers).items()
        }
