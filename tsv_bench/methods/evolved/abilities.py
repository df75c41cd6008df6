"""The abilities of a merged model: those of known models combined, or found from its answers."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.linalg.quasi_newton import minimize
from tsv_bench.methods.evolved.irt import Items

COMBINATIONS = ("convex", "free")
STEPS = 100
LARGEST = 30.0  # logits beyond it count as it, as in the authors' code


def combined(
    items: Items,
    right: Bool[Tensor, " items"],
    endpoints: Float[Tensor, "endpoints dims"],
    combination: str,
) -> Float[Tensor, " dims"]:
    """Return the combination of the endpoints' abilities that makes the answers most probable.

    "convex": weights are not negative and sum to 1. "free": any weights. Both start at equal ones.
    """
    count = len(endpoints)

    def weights(x: Tensor) -> Tensor:
        return x.softmax(dim=0) if combination == "convex" else x

    def value(x: Tensor) -> tuple[Tensor, Tensor]:
        share = weights(x)
        surprise, gradient = _surprise(items, right, share @ endpoints)
        gradient = endpoints @ gradient
        if combination == "convex":
            gradient = share * (gradient - share @ gradient)
        return surprise, gradient

    start = torch.zeros(count) if combination == "convex" else torch.full((count,), 1 / count)
    return weights(minimize(value, start, STEPS)) @ endpoints


def fitted(items: Items, right: Bool[Tensor, " items"]) -> Float[Tensor, " dims"]:
    """Return the abilities that make the answers most probable, with the prior of the fit."""

    def value(x: Tensor) -> tuple[Tensor, Tensor]:
        surprise, gradient = _surprise(items, right, x)
        return surprise + x.square().sum() / 2, gradient + x

    return minimize(value, torch.zeros(items.discrimination.shape[1]), STEPS)


def _surprise(
    items: Items, right: Bool[Tensor, " items"], abilities: Float[Tensor, " dims"]
) -> tuple[Tensor, Tensor]:
    """Return minus the answers' log-likelihood, and its gradient."""
    logits = items.logits(abilities)
    held = logits.clamp(-LARGEST, LARGEST)
    surprise = F.binary_cross_entropy_with_logits(held, right.double(), reduction="sum")
    slope = (held.sigmoid() - right.double()) * (held == logits)
    return surprise, slope @ items.discrimination
