"""Anchors: distinct items whose weights sum to 1."""

import pytest
import torch

from tsv_bench.methods.evolved.anchors import CHOICES, choose_anchors
from tsv_bench.methods.evolved.irt import Items


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def items_at(points):
    points = torch.as_tensor(points, dtype=torch.float64)
    return Items(points[:, :-1], points[:, -1])


def drawn(number, dims=2):
    return items_at(torch.randn(number, dims + 1, generator=seeded(7)))


@pytest.mark.parametrize("how", CHOICES)
@pytest.mark.parametrize("number", [1, 5, 39])
def test_anchors_are_distinct_and_weigh_one_together(how, number):
    items = drawn(40)
    anchors = choose_anchors(items, number, how, seeded())
    assert len(anchors) == number == len(set(anchors.rows.tolist()))
    assert anchors.rows.equal(anchors.rows.sort().values)
    torch.testing.assert_close(anchors.weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert (anchors.weights > 0).all()
    again = choose_anchors(items, number, how, seeded())
    assert again.rows.equal(anchors.rows) and again.weights.equal(anchors.weights)


@pytest.mark.parametrize("how", CHOICES)
def test_all_items_are_anchors_if_there_are_no_more(how):
    anchors = choose_anchors(drawn(7), 9, how, seeded())
    assert anchors.rows.tolist() == list(range(7))
    assert anchors.weights.tolist() == [1 / 7] * 7


def test_clusters_that_lie_apart_have_an_anchor_each_that_weighs_as_they_do():
    centres, sizes = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]]), [5, 3, 2]
    owner = torch.tensor([0] * sizes[0] + [1] * sizes[1] + [2] * sizes[2])
    points = centres[owner] + torch.randn(10, 2, generator=seeded(3))
    anchors = choose_anchors(items_at(points), 3, "kmeans", seeded())
    found = dict(zip(owner[anchors.rows].tolist(), anchors.weights.tolist(), strict=True))
    assert found == {0: 0.5, 1: 0.3, 2: 0.2}


@pytest.mark.parametrize("number", [2, 5, 11])
def test_items_that_are_equal_are_no_anchor_twice(number):
    points = torch.zeros(12, 3)
    points[0] = 1
    anchors = choose_anchors(items_at(points), number, "kmeans", seeded())
    assert len(set(anchors.rows.tolist())) == number
    assert float(anchors.weights.sum()) == pytest.approx(1, abs=1e-12)
