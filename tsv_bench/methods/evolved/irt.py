"""Item response theory: how probable it is that a model of given abilities answers an item right.

The two-parameter logistic model in several dimensions: an item has discriminations and a
difficulty, and sigmoid(discriminations . abilities - difficulty) is the probability.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.linalg.quasi_newton import minimize

# A normal prior of each number, which keeps all finite where every answer is right: abilities have
# mean 0 and deviation 1, discriminations these, and difficulties this around their own mean.
MEAN_DISCRIMINATION, DISCRIMINATION, DIFFICULTY = 1.0, 1.0, 2.0
STEPS = 500  # of the fit: seconds for 4000 items and 15 respondents


@dataclass(frozen=True)
class Items:
    """Items with their discriminations, from 0 on, and difficulties."""

    discrimination: Float[Tensor, "items dims"]
    difficulty: Float[Tensor, " items"]

    def logits(self, abilities: Float[Tensor, "*who dims"]) -> Float[Tensor, "*who items"]:
        """Return the logit of a right answer, of every item and respondent."""
        return abilities @ self.discrimination.mT - self.difficulty

    def probabilities(self, abilities: Float[Tensor, "*who dims"]) -> Float[Tensor, "*who items"]:
        """Return the probability of a right answer, of every item and respondent."""
        return self.logits(abilities).sigmoid()

    def __getitem__(self, rows: Tensor | slice) -> "Items":
        return Items(self.discrimination[rows], self.difficulty[rows])

    def __len__(self) -> int:
        return len(self.difficulty)


def fit(
    answers: Bool[Tensor, "respondents items"], dimensions: int, seed: int
) -> tuple[Items, Float[Tensor, "respondents dims"]]:
    """Return the items and the respondents' abilities that make the answers most probable.

    Most probable with the priors above. The first dimension starts from how many answers were
    right, the others from small random numbers of the ``seed``.
    """
    right = answers.double()
    num_respondents, num_items = right.shape
    sizes = [num_items * dimensions, num_items, num_respondents * dimensions]

    def unpacked(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        discrimination, difficulty, abilities = x.split(sizes)
        return (
            F.softplus(discrimination.reshape(num_items, dimensions)),
            difficulty,
            abilities.reshape(num_respondents, dimensions),
        )

    def value(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_(True)
        with torch.enable_grad():
            discrimination, difficulty, abilities = unpacked(x)
            logits = Items(discrimination, difficulty).logits(abilities)
            surprise = F.binary_cross_entropy_with_logits(logits, right, reduction="sum")
            spread = (discrimination - MEAN_DISCRIMINATION) / DISCRIMINATION
            shift = (difficulty - difficulty.mean()) / DIFFICULTY
            penalty = sum(part.square().sum() for part in (abilities, spread, shift)) / 2
            loss = surprise + penalty
        return loss.detach(), torch.autograd.grad(loss, x)[0]

    x = minimize(value, _start(right, dimensions, seed), STEPS)
    discrimination, difficulty, abilities = unpacked(x)
    return Items(discrimination, difficulty), abilities


def _start(right: Float[Tensor, "respondents items"], dimensions: int, seed: int) -> Tensor:
    num_respondents, num_items = right.shape
    generator = torch.Generator().manual_seed(seed)
    abilities = torch.randn(num_respondents, dimensions, dtype=torch.float64, generator=generator)
    abilities *= 0.1
    abilities[:, 0] += _logit(right.mean(dim=1))
    discrimination = torch.randn(num_items, dimensions, dtype=torch.float64, generator=generator)
    parts = (0.1 * discrimination, -_logit(right.mean(dim=0)), abilities)
    return torch.cat([part.flatten() for part in parts])


def _logit(share: Tensor) -> Tensor:
    return share.clamp(0.05, 0.95).logit()
