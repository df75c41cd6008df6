"""Theorems of Model Stock, in float64."""

from itertools import combinations

import pytest
import torch
from made_up.vectors import close, randn, random_vectors

from tsv_bench import methods
from tsv_bench.methods.entrywise.model_stock import ratio, shrunk_mean


def by_definition(deltas):
    """The mean of the cosines of all pairs, each by itself; never less than zero."""
    flat = [delta.flatten() for delta in deltas]
    cosines = [torch.cosine_similarity(a, b, dim=0).item() for a, b in combinations(flat, 2)]
    cosine, count = sum(cosines) / len(cosines), len(deltas)
    t = count * cosine / (1 + (count - 1) * cosine)
    return max(t, 0) * sum(deltas) / count


@pytest.mark.parametrize("shared", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("num_tasks", [2, 3, 8])
def test_model_stock_is_its_definition(num_tasks, shared):
    vectors = random_vectors(num_tasks)
    alike = random_vectors(1)["task0"]
    for scale, vector in enumerate(vectors.values(), start=1):
        for name in vector:
            vector[name] = scale * (vector[name] + shared * alike[name])
    served = methods.model_stock(vectors)["task0"]
    for name, merged in served.items():
        expected = by_definition([vector[name] for vector in vectors.values()])
        torch.testing.assert_close(merged, expected, **close)
    assert served["proj"].any() or shared < 3  # not by being nothing


@pytest.mark.parametrize("num_tasks", [2, 3, 5])
def test_it_is_the_point_next_to_the_centre_of_the_tasks(num_tasks):
    """The paper's geometry: t w is where a perpendicular from the centre meets the plane.

    Deltas of one length around a centre, each as far from it, any two equally far apart.
    """
    axes = torch.linalg.qr(randn(40, num_tasks + 1)).Q.mT
    centre = 2 * axes[0]
    deltas = centre + 0.7 * axes[1:]
    merged = shrunk_mean(list(deltas))
    torch.testing.assert_close(deltas @ (merged - centre), torch.zeros(num_tasks).double(), **close)


def test_equal_tasks_and_one_task_are_served_as_they_are():
    delta = randn(6, 4)
    for num_tasks in (1, 2, 7):
        torch.testing.assert_close(shrunk_mean([delta] * num_tasks), delta, **close)


def test_tasks_that_share_nothing_or_pull_apart_leave_the_pretrained_weights():
    a, b = randn(8), randn(8)
    b = b - a * (a @ b) / (a @ a)
    torch.testing.assert_close(shrunk_mean([a, 3 * b]), torch.zeros(8).double(), **close)
    assert not shrunk_mean([a, -2 * a]).any()
    assert not shrunk_mean([a, b - 0.1 * a]).any()
    third = torch.tensor([[1.0, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]).double()
    assert not shrunk_mean(list(third)).any()  # c is -1 / 2: the formula divides by zero


def test_an_unchanged_task_counts_as_one_that_shares_nothing():
    a, b = randn(5, 5), randn(5, 5)
    a = a + b
    cosine = torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item() / 3
    expected = 3 * cosine / (1 + 2 * cosine) * (a + b) / 3
    torch.testing.assert_close(shrunk_mean([a, torch.zeros(5, 5), b]), expected, **close)


@pytest.mark.parametrize("num_tasks", [1, 2, 9])
def test_the_ratio_rises_from_nothing_to_the_mean(num_tasks):
    found = [ratio(cosine, num_tasks) for cosine in (-1.0, 0.0, 1e-6, 0.2, 0.7, 1.0)]
    assert found[:2] == [0, 0] and found[-1] == 1
    assert found == sorted(found)
