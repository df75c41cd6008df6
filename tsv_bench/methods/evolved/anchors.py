"""Choose the few items of a task that every candidate answers, the anchors, and their weights."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tsv_bench.methods.evolved.irt import Items

CHOICES = ("random", "kmeans")
STEPS = 100  # of k-means, at most


@dataclass(frozen=True)
class Anchors:
    """Rows of a task's items, in ascending order, and how much each weighs: 1 together."""

    rows: Int[Tensor, " anchors"]
    weights: Float[Tensor, " anchors"]

    def __len__(self) -> int:
        return len(self.rows)


def choose_anchors(items: Items, number: int, how: str, generator: torch.Generator) -> Anchors:
    """Return ``number`` of the items, chosen as ``how`` says.

    "random" are drawn without replacement and weigh the same. "kmeans" are nearest to the centres
    of clusters of discriminations and difficulties, and weigh as their clusters' shares. All items,
    if there are no more.
    """
    total = len(items)
    if number >= total:
        return Anchors(torch.arange(total), torch.full((total,), 1 / total, dtype=torch.float64))
    if how == "random":
        rows = torch.randperm(total, generator=generator)[:number].sort().values
        return Anchors(rows, torch.full((number,), 1 / number, dtype=torch.float64))
    points = torch.cat([items.discrimination, items.difficulty[:, None]], dim=1)
    rows, sizes = nearest_to_centres(points, number, generator)
    return Anchors(rows, sizes.double() / total)


def nearest_to_centres(
    points: Float[Tensor, "points dims"], number: int, generator: torch.Generator
) -> tuple[Int[Tensor, " clusters"], Int[Tensor, " clusters"]]:
    """Return the point nearest to the centre of each cluster of k-means, and the clusters' sizes.

    No cluster is empty, even if points are equal, so that no point is returned twice.
    """
    centres = points[_spread(points, number, generator)]
    labels = torch.full((len(points),), -1)
    for _ in range(STEPS):
        before, labels = labels, _filled(_squares(points, centres), number)
        if torch.equal(before, labels):
            break
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        centres = sums / torch.bincount(labels, minlength=number)[:, None]
    squares = _squares(points, centres)
    outside = labels[:, None] != torch.arange(number)
    rows, order = squares.masked_fill(outside, torch.inf).argmin(dim=0).sort()
    return rows, torch.bincount(labels, minlength=number)[order]


def _spread(points: Tensor, number: int, generator: torch.Generator) -> list[int]:
    """Return distinct points, each drawn by its squared distance to those before: k-means++."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    while len(chosen) < number:
        near = _squares(points, points[chosen]).amin(dim=1)
        near[chosen] = 0
        if not near.any():  # all others are equal to one that is chosen
            near.fill_(1)[chosen] = 0
        chosen.append(int(torch.multinomial(near, 1, generator=generator)))
    return chosen


def _filled(squares: Float[Tensor, "points clusters"], number: int) -> Int[Tensor, " points"]:
    """Return each point's nearest cluster; an empty one takes the farthest of those with more."""
    labels = squares.argmin(dim=1)
    own = squares.gather(1, labels[:, None])[:, 0]
    for cluster in range(number):
        sizes = torch.bincount(labels, minlength=number)
        if sizes[cluster] == 0:
            far = own.masked_fill(sizes[labels] < 2, -1).argmax()
            labels[far], own[far] = cluster, 0
    return labels


def _squares(points: Tensor, centres: Tensor) -> Float[Tensor, "points clusters"]:
    return (points[:, None] - centres).square().sum(dim=2)
