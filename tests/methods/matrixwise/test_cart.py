"""Theorems of CART, in float64."""

import pytest
import torch
from made_up.vectors import close, randn, random_vectors
from torch.linalg import matrix_rank, svd

from tsv_bench import methods
from tsv_bench.methods.matrixwise.cart import centered_sum

SHAPES = [(24, 24), (40, 24), (24, 40)]


def by_definition(deltas, rank, scale):
    center = sum(deltas) / len(deltas)
    merged = center.clone()
    for delta in deltas:
        u, s, vh = svd(delta - center, full_matrices=False)
        for j in range(rank):
            merged += scale * s[j] * torch.outer(u[:, j], vh[j])
    return merged


@pytest.mark.parametrize("route", ["gram", "svd"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("fraction", "rank"), [(0.12, 2), (0.01, 1), (0.5, 12), (None, 6)])
def test_cart_is_its_definition(shape, route, fraction, rank):
    deltas = randn(4, *shape)
    merged = centered_sum(deltas, fraction, 1.7, route)
    torch.testing.assert_close(merged, by_definition(deltas, rank, 1.7), **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_differences_at_full_rank_cancel(shape):
    """They add up to zero, whatever they are multiplied by: the mean is left."""
    deltas = randn(3, *shape)
    torch.testing.assert_close(centered_sum(deltas, 1.0, 5.0), deltas.mean(0), **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_two_tasks_are_averaged(shape):
    """Their differences from the mean are opposite, and so is what is kept of these."""
    deltas = randn(2, *shape)
    torch.testing.assert_close(centered_sum(deltas, 0.12, 2.0), deltas.mean(0), **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_all_tasks_share_is_neither_cut_nor_multiplied(shape):
    deltas, shared = randn(3, *shape), randn(*shape)
    merged = centered_sum(deltas + shared, 0.12, 2.0)
    torch.testing.assert_close(merged, centered_sum(deltas, 0.12, 2.0) + shared, **close)


def test_what_is_added_to_the_mean_has_low_rank_and_is_proportional_to_the_scale():
    deltas = randn(3, 24, 40)
    once, twice = (centered_sum(deltas, 0.1, scale) - deltas.mean(0) for scale in (1.0, 2.0))
    assert matrix_rank(once) == 6
    torch.testing.assert_close(twice, 2 * once, **close)


def test_a_scale_of_zero_is_the_weight_average():
    vectors = random_vectors(3)
    merged, average = methods.cart(vectors, centered_scale=0), methods.weight_average(vectors)
    torch.testing.assert_close(dict(merged["task0"]), dict(average["task0"]), **close)
