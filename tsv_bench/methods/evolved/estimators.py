"""Estimate a candidate's accuracy on all items from its answers to a few, the anchors."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.methods.evolved.abilities import combined, fitted
from tsv_bench.methods.evolved.anchors import Anchors
from tsv_bench.methods.evolved.irt import Items

ESTIMATORS = ("mean", "p_irt", "mp_irt", "gmp_irt")
TOGETHER = ("joint", "task")  # for what there is one ability: all tasks, or each
SHARE = 0.5  # of the anchors' mean in gmp-IRT


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Estimate the accuracy on each task from the answers to its anchors.

    "mean" is the weighted mean of the anchors' answers. The others predict the rest by item
    response theory, with abilities fitted to the anchors' answers ("p_irt"), or combined of the
    endpoints' ("mp_irt"); "gmp_irt" is half way from that to the mean.
    """

    kind: str
    combination: str  # see `combined`
    together: str
    items: Mapping[str, Items]  # task -> all its items
    anchors: Mapping[str, Anchors]
    endpoints: Float[Tensor, "endpoints dims"]

    def __call__(self, right: Mapping[str, Bool[Tensor, " anchors"]]) -> Float[Tensor, " tasks"]:
        """Return the estimated accuracies, in the order of the items' tasks."""
        abilities = self._abilities(right)
        found = [self._estimate(task, right[task], abilities.get(task)) for task in self.items]
        return torch.tensor(found, dtype=torch.float64)

    def _abilities(self, right: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.kind == "mean":
            return {}
        asked = {task: items[self.anchors[task].rows] for task, items in self.items.items()}
        if self.together == "task":
            return {task: self._ability(asked[task], right[task]) for task in asked}
        every = Items(
            torch.cat([items.discrimination for items in asked.values()]),
            torch.cat([items.difficulty for items in asked.values()]),
        )
        one = self._ability(every, torch.cat([right[task] for task in asked]))
        return dict.fromkeys(asked, one)

    def _ability(self, items: Items, right: Tensor) -> Tensor:
        if self.kind == "p_irt":
            return fitted(items, right)
        return combined(items, right, self.endpoints, self.combination)

    def _estimate(self, task: str, right: Tensor, abilities: Tensor | None) -> float:
        items, anchors = self.items[task], self.anchors[task]
        mean = float(anchors.weights @ right.double())
        rest = torch.ones(len(items), dtype=torch.bool)
        rest[anchors.rows] = False
        if abilities is None or not rest.any():
            return mean
        known = len(anchors) / len(items)
        predicted = float(items[rest].probabilities(abilities).mean())
        estimate = known * mean + (1 - known) * predicted
        return SHARE * mean + (1 - SHARE) * estimate if self.kind == "gmp_irt" else estimate
