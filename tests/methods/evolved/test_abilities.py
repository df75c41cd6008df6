"""Abilities of a merged model: inside of the endpoints' hull, or anywhere, and most probable."""

import pytest
import torch

from tsv_bench.methods.evolved.abilities import COMBINATIONS, combined, fitted
from tsv_bench.methods.evolved.irt import Items


def example(share, num_items=4000):
    generator = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    items = Items(normal(num_items, 3).abs(), normal(num_items))
    endpoints = normal(3, 3)
    abilities = torch.tensor(share, dtype=torch.float64) @ endpoints
    drawn = torch.rand(num_items, dtype=torch.float64, generator=generator)
    return items, endpoints, abilities, drawn < items.probabilities(abilities)


def likelihood(items, right, abilities):
    probabilities = items.probabilities(abilities)
    return float(torch.where(right, probabilities, 1 - probabilities).log().sum())


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_known_combination_is_found(combination):
    items, endpoints, abilities, right = example([0.6, 0.3, 0.1])
    found = combined(items, right, endpoints, combination)
    # 4000 answers tell an ability up to 1 / sqrt(4000 * 0.2) = 0.04 or so.
    torch.testing.assert_close(found, abilities, rtol=0, atol=0.15)
    assert likelihood(items, right, found) >= likelihood(items, right, abilities)


def test_convex_stays_within_the_hull_and_free_does_not():
    items, endpoints, abilities, right = example([1.5, -0.5, 0.5])
    free = combined(items, right, endpoints, "free")
    convex = combined(items, right, endpoints, "convex")
    weights = torch.linalg.solve(endpoints.mT, convex)
    assert (weights > -1e-9).all() and float(weights.sum()) == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(free, abilities, rtol=0, atol=0.15)
    assert likelihood(items, right, free) > likelihood(items, right, convex)
    # No point of the hull is more probable: its corners and their middles. At a corner the weights'
    # logits are infinite, hence a rounding error of the likelihood.
    corners = [*endpoints, *(endpoints.roll(1, 0) + endpoints) / 2]
    best = max(likelihood(items, right, corner) for corner in corners)
    assert likelihood(items, right, convex) > best - 1e-6


def test_fitted_abilities_are_most_probable_with_their_prior():
    items, _, _, right = example([1.0, 0.0, 0.0], 200)
    found = fitted(items, right)

    def value(abilities):
        return likelihood(items, right, abilities) - float(abilities.square().sum()) / 2

    steps = 1e-3 * torch.eye(3, dtype=torch.float64)
    assert all(value(found) > value(found + step) for step in [*steps, *-steps])


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_answers_that_are_all_right_give_finite_abilities(combination):
    items, endpoints, _, right = example([1.0, 0.0, 0.0], 50)
    assert combined(items, torch.ones_like(right), endpoints, combination).isfinite().all()
    assert fitted(items, torch.ones_like(right)).isfinite().all()
