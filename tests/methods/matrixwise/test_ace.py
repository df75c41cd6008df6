"""Theorems of ACE-Merging, in float64, and its rule typed again from the definition."""

import math

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.matrixwise.ace import (
    Knobs,
    heterogeneity,
    leading_directions,
    merge_matrix,
    solve,
)

SHAPES = [(12, 12), (30, 10), (10, 40)]
shapes = pytest.mark.parametrize(("m", "n"), SHAPES)
plain = Knobs(1e-5, None, 0.3, 0.3)
# Solved here, inverted there: rounding times a condition number of 1e6 to 1e7.
near = {"rtol": 1e-9, "atol": 1e-9}


def by_definition(deltas, eps, threshold=0.3, spectral_fraction=0.3):
    """The seven steps one by one, each matrix as it is defined; returns the branch as well."""
    num_tasks, m, n = deltas.shape
    eye = torch.eye(n, dtype=torch.float64)
    sizes = [(delta**2).sum() for delta in deltas]
    logs = torch.stack([torch.log(size + 1e-12) for size in sizes])
    gamma = ((logs - logs.mean()) ** 2).sum() / (num_tasks - 1) / (logs.mean() ** 2 + 1e-12)
    mixed = bool(gamma > threshold)
    centred = [delta - torch.ones(m, 1).double() @ delta.mean(0, keepdim=True) for delta in deltas]
    covariances, regular = [], []
    for d in centred:
        s = d.mT @ d
        scale = 1 / s.trace() if mixed else 1.0
        covariances.append(scale * s)
        regular.append(scale * s + scale * eps * eye)
    prior = torch.ones(1, n).double() @ sum(covariances) / n
    if mixed:
        prior = prior / (sum(sizes) / num_tasks)
    a = sum(regular) + torch.ones(n, 1).double() @ prior
    w = sum(d @ r for d, r in zip(centred, regular, strict=True)) @ torch.linalg.inv(a)
    if not mixed:
        return w, mixed
    mean = sum(regular) / num_tasks
    e = sum(delta @ (s - mean) for delta, s in zip(deltas, covariances, strict=True))
    u, s, vh = torch.linalg.svd(w + e, full_matrices=False)
    k = math.floor(spectral_fraction * min(m, n))
    return w + s[:k].mean() * u[:, :k] @ vh[:k], mixed


@shapes
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
@pytest.mark.parametrize("num_tasks", [2, 5])
def test_alike_tasks_are_merged_by_the_definition(m, n, eps, num_tasks):
    deltas = 0.1 * randn(num_tasks, m, n)
    expected, mixed = by_definition(deltas, eps)
    assert not mixed
    merged = merge_matrix(deltas, plain._replace(eps=eps))
    torch.testing.assert_close(merged, expected, **near)


@shapes
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
@pytest.mark.parametrize("num_tasks", [3, 5])
def test_tasks_of_different_sizes_are_merged_by_the_definition(m, n, eps, num_tasks):
    scales = torch.tensor([0.01, 0.3, 1.0, 3.0, 0.1], dtype=torch.float64)[:num_tasks]
    deltas = scales[:, None, None] * randn(num_tasks, m, n) + 0.02
    expected, mixed = by_definition(deltas, eps)
    assert mixed
    merged = merge_matrix(deltas, plain._replace(eps=eps))
    torch.testing.assert_close(merged, expected, **near)


@shapes
def test_the_knobs_of_the_heterogeneous_branch_are_the_definitions(m, n):
    deltas = torch.tensor([0.2, 0.4, 1.0]).double()[:, None, None] * randn(3, m, n)
    for threshold, fraction in ((0.0, 0.5), (0.0, 1.0), (1e9, 0.5)):
        expected, mixed = by_definition(deltas, 1e-3, threshold, fraction)
        assert mixed == (threshold == 0)
        merged = merge_matrix(deltas, Knobs(1e-3, None, threshold, fraction))
        torch.testing.assert_close(merged, expected, **near)


def test_the_correction_has_one_direction_at_least_and_none_of_a_zero_singular_value():
    u, v = (torch.linalg.qr(randn(side, 3)).Q for side in (8, 6))
    matrix = u * torch.tensor([4.0, 2.0, 1.0]).double() @ v.mT
    for fraction, count, values in ((0.0, 0, 0), (0.01, 1, 4), (0.34, 2, 6), (1.0, 6, 7)):
        spanned = min(count, 3)  # the mean counts zeros
        expected = values / max(count, 1) * u[:, :spanned] @ v[:, :spanned].mT
        torch.testing.assert_close(leading_directions(matrix, fraction), expected, **close)


@shapes
def test_the_solution_solves_its_equation_to_float64(m, n):
    root, products = randn(n, 2 * n), randn(m, n)
    covariance, prior = root @ root.mT / n, root.mean(0).abs()[:n] / n
    found = solve(covariance.tril(), prior, products)
    torch.testing.assert_close(found @ (covariance + prior), products, **close)


@shapes
def test_without_a_prior_row_each_task_is_fitted_on_its_own_inputs(m, n):
    """Tasks whose inputs share nothing and sum up to none are all merged without loss."""
    basis = torch.linalg.qr(randn(n, n)).Q
    basis[0] = 1 / math.sqrt(n)  # inputs without this direction have no prior row
    basis = torch.linalg.qr(basis.mT).Q.mT[1:]
    first, second = basis[:4], basis[4:8]
    deltas = torch.stack([randn(m, len(b)) @ b for b in (first, second)])
    deltas = deltas - deltas.mean(1, keepdim=True)
    merged = merge_matrix(deltas, plain._replace(eps=1e-8))
    for delta, own in zip(deltas, (first, second), strict=True):
        torch.testing.assert_close(
            merged @ own.mT, delta @ own.mT, rtol=0, atol=1e-6
        )  # eps over squares


@shapes
def test_equal_tasks_count_as_one(m, n):
    delta = 0.1 * randn(m, n)
    one, four = (merge_matrix(delta.expand(t, m, n), plain) for t in (1, 4))
    torch.testing.assert_close(four, one, **near)


@shapes
def test_one_task_keeps_what_its_prior_row_leaves(m, n):
    delta = 0.1 * randn(m, n)
    centred = delta - delta.mean(0)
    covariance = centred.mT @ centred
    prior = covariance.mean(0) @ torch.linalg.inv(covariance + 1e-5 * torch.eye(n).double())
    lost = torch.outer(centred.sum(1), prior) / (1 + prior.sum())
    torch.testing.assert_close(merge_matrix(delta[None], plain), centred - lost, **near)


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_a_task_that_changed_nothing_changes_nothing(scale):
    deltas = torch.tensor([1, scale, 1]).double()[:, None, None] * randn(3, 12, 8)
    with_idle = torch.cat([deltas, torch.zeros(1, 12, 8).double()])
    torch.testing.assert_close(merge_matrix(with_idle, plain), merge_matrix(deltas, plain), **close)
    assert not merge_matrix(torch.zeros(2, 4, 3), plain).any()


@shapes
def test_a_mean_row_is_lost(m, n):
    deltas, rows = 0.1 * randn(3, m, n), randn(3, 1, n)
    merged, moved = (
        merge_matrix(x, plain._replace(threshold=1e9)) for x in (deltas, deltas + rows)
    )
    torch.testing.assert_close(moved, merged, **near)


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_equal_rows_stand_for_no_inputs(threshold):
    knobs = plain._replace(threshold=threshold)
    rows = torch.tensor([1.0, 7.0, 0.1]).double()[:, None, None] * randn(3, 1, 8)
    assert not merge_matrix(rows.expand(3, 6, 8), knobs).any()
    assert not merge_matrix(rows, knobs).any()
    mixed = torch.stack([rows[0].expand(6, 8), randn(6, 8), 3 * randn(6, 8)])
    assert merge_matrix(mixed, knobs).isfinite().all()


def test_a_singular_sum_of_any_size_is_solved():
    for scale in (1e-20, 1.0, 1e8, 1e20):  # of float32: beside the last two an eps of 1e-5 is lost
        merged = merge_matrix((scale * randn(2, 3, 40)).float(), plain)
        assert merged.isfinite().all() and merged.dtype == torch.float32


def test_a_relative_eps_knows_no_scale():
    deltas, knobs = 0.1 * randn(3, 12, 8), Knobs(1e-5, 1e-3, 1e9, 0.3)
    merged, large = (merge_matrix(scale * deltas, knobs) for scale in (1, 1e6))
    torch.testing.assert_close(large / 1e6, merged, **close)
    centred = deltas - deltas.mean(1, keepdim=True)
    eps = 1e-3 * float(centred.square().sum()) / 8
    absolute = merge_matrix(deltas, Knobs(eps, None, 1e9, 0.3))
    torch.testing.assert_close(merged, absolute, **close)


def test_heterogeneity_is_that_of_logarithms():
    sizes = torch.tensor([1.0, math.e**2]).double()
    assert heterogeneity(sizes) == pytest.approx(2 / (1 + 1e-12), rel=1e-10)
    assert heterogeneity(sizes[:1]) == 0 and heterogeneity(sizes[:0]) == 0


def test_float32_is_as_good_as_float64():
    deltas = (1e-3 * randn(6, 40, 30)).float()
    merged, exact = merge_matrix(deltas, plain), merge_matrix(deltas.double(), plain)
    assert merged.dtype == torch.float32
    torch.testing.assert_close(merged, exact.float(), rtol=1e-6, atol=1e-10)  # one rounding


def test_fused_projections_are_one_matrix_unless_split():
    vectors = random_vectors(3)
    whole, split = (methods.ace(vectors, split_qkv=flag) for flag in (False, True))
    expected = [
        merge_matrix(torch.stack(parts), plain)
        for parts in zip(*(v["in_proj_weight"].chunk(3) for v in vectors.values()), strict=True)
    ]
    torch.testing.assert_close(split["task0"]["in_proj_weight"], torch.cat(expected), **close)
    assert not torch.allclose(whole["task0"]["in_proj_weight"], torch.cat(expected))
    assert torch.equal(read(whole)["task0"]["proj"], split["task0"]["proj"])
