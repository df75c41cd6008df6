"""What a search of MERGE3 has found: its best candidates, and how good the estimates were."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.evolved.respondents import Responses
from tsv_bench.methods.evolved.search import Generation, front


@dataclass(frozen=True, kw_only=True)
class Searched:
    """All candidates in the order in which they were asked, and what is known of them."""

    responses: Responses
    objectives: Sequence[str]  # their names
    num_asked: int  # items that each candidate is asked
    asks_some: bool = True  # else all are asked, and an estimate is an accuracy
    generations: Sequence[Generation]
    estimates: Float[Tensor, "candidates groups"]  # NaN of those that could not be asked
    # Candidate -> its accuracies on all items of each group, None if it could not be asked.
    known: dict[int, Tensor | None] = field(default_factory=dict)

    @cached_property
    def genotypes(self) -> Float[Tensor, "candidates genes"]:
        return torch.cat([generation.genotypes for generation in self.generations])

    @cached_property
    def fitness(self) -> Float[Tensor, "candidates objectives"]:
        return torch.cat([generation.objectives for generation in self.generations])

    @cached_property
    def able(self) -> Tensor:
        """Which candidates could be asked."""
        return self.estimates.isfinite().all(dim=1)

    @cached_property
    def last(self) -> list[int]:
        """The candidates of the last generation that could be asked."""
        start = len(self.estimates) - len(self.generations[-1].genotypes)
        return [index for index in range(start, len(self.estimates)) if self.able[index]]

    @cached_property
    def front(self) -> Tensor:
        """Which candidates no other one dominates, by their estimates."""
        return front(self.fitness) & self.able

    def best(self, count: int) -> list[int]:
        """Return the candidates with the best mean of the objectives, no genotype twice.

        With several objectives only those of the front. Raises ValueError if there is none.
        """
        wanted = self.front if len(self.objectives) > 1 else self.able
        order = self.fitness.mean(dim=1).sort(descending=True, stable=True).indices.tolist()
        top: list[int] = []
        for index in order:
            same = (torch.equal(self.genotypes[index], self.genotypes[other]) for other in top)
            if wanted[index] and not any(same):
                top.append(index)
        if not top:
            raise ValueError(
                f"none of the {len(order)} candidates could be asked: see the warnings above."
            )
        return top[:count]

    def ask_all(self, index: int, accuracy: Callable[[Tensor], Tensor | None]) -> None:
        """Find the accuracies of a candidate on all items, if they are not known."""
        if index not in self.known:
            asked = accuracy(self.genotypes[index]) if self.asks_some else self.estimates[index]
            self.known[index] = asked

    def choose(self, top: Sequence[int], fitness: Callable[[Tensor], Tensor]) -> int:
        """Return the candidate that is best on all items, that of the better estimate on a tie.

        Raises ValueError if none of them could be asked all items.
        """
        scores = {
            index: float(fitness(self.known[index][None]).mean())
            for index in top
            if self.known[index] is not None
        }
        if not scores:
            raise ValueError(
                "none of the best candidates could be asked all items: see the warnings above."
            )
        return max(scores, key=scores.__getitem__)

    def sentence(self, chosen: int) -> str:
        """Say what the search took and how good the chosen candidate is."""
        images, percent = self.images, 100 * self.known[chosen].mean()
        return (
            f"merge3: {len(self.estimates)} candidates, {images['search']} items asked in place of "
            f"{images['full_search']}. The chosen one is at {percent:.1f} % of all "
            f"{images['items']} items; estimated were {100 * self.estimates[chosen].mean():.1f} %."
        )

    @property
    def images(self) -> dict[str, int]:
        """How many items were asked of how many models, by what for."""
        total, count = sum(self.responses.sizes.values()), len(self.estimates)
        return {
            "items": total,
            "respondents": total * len(self.responses.names),
            "search": self.num_asked * count,
            "on_all": total * len(self.known) * self.asks_some,
            "full_search": total * count,
        }

    def account(
        self, chosen: int, last: Sequence[int], genes: Sequence[Mapping[str, float]]
    ) -> dict[str, Any]:
        """Return the search as plain data. ``genes``: of the chosen candidate."""
        pairs = [(self.estimates[i], self.known[i]) for i in last if self.known[i] is not None]
        several = len(self.objectives) > 1
        return {
            "images": self.images,
            "candidates": len(self.estimates),
            "skipped": int((~self.able).sum()),
            "best_by_generation": [float(g.objectives.mean(dim=1).max()) for g in self.generations],
            "last_generation": {
                "estimate": [self._by_group(estimate) for estimate, _ in pairs],
                "accuracy": [self._by_group(accuracy) for _, accuracy in pairs],
                "error": mean_error(pairs),
            },
            "objectives": list(self.objectives),
            "asked": self.fitness[self.able].tolist() if several else [],
            "front": self.fitness[self.front].tolist() if several else [],
            "chosen": {
                "genes": list(genes),
                "estimate": self._by_group(self.estimates[chosen]),
                "accuracy": self._by_group(self.known[chosen]),
            },
        }

    def _by_group(self, accuracies: Tensor) -> dict[str, float]:
        return dict(zip(self.responses.sizes, accuracies.tolist(), strict=True))


def mean_error(pairs: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """Return how far estimates of the mean accuracy are from it, on average; None for none."""
    if not pairs:
        return None
    errors = [abs(float(estimate.mean() - accuracy.mean())) for estimate, accuracy in pairs]
    return sum(errors) / len(errors)
