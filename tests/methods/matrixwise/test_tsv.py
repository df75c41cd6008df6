"""Theorems of TSV-M and TSV-C, in float64."""

import math

import pytest
import torch
from made_up.vectors import close, randn, random_vectors

from tsv_bench import methods
from tsv_bench.linalg.polar import polar_factor
from tsv_bench.methods.matrixwise.tsv import merge_matrix

SHAPES = [(24, 24), (40, 24), (24, 40)]
ROUTES = ["svd", "eigen"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_tasks_that_do_not_interfere_are_summed(shape, route):
    m, n = shape
    u = torch.linalg.qr(randn(m, 6)).Q.split(2, dim=1)
    v = torch.linalg.qr(randn(n, 6)).Q.split(2, dim=1)
    scales = torch.tensor([3.0, 0.5], dtype=torch.float64)
    deltas = torch.stack([scales * ui @ vi.mT for ui, vi in zip(u, v, strict=True)])
    merged = merge_matrix(deltas, rank_fraction=2 / min(shape), polar=route)
    torch.testing.assert_close(merged, deltas.sum(0), **close)
    # A share larger than the tasks' rank brings in nothing: those singular values are zero.
    torch.testing.assert_close(merge_matrix(deltas, polar=route), deltas.sum(0), **close)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_merged_layer_keeps_every_singular_value(shape, route):
    deltas = randn(3, *shape)
    kept = torch.linalg.svdvals(deltas)[:, :8].reshape(-1).sort(descending=True).values
    merged = merge_matrix(deltas, polar=route)
    torch.testing.assert_close(torch.linalg.svdvals(merged), kept, **close)


@pytest.mark.parametrize("rank_fraction", [None, 0.1, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_routes_merge_alike(shape, rank_fraction):
    deltas = randn(3, *shape)
    svd, eigen = (merge_matrix(deltas, rank_fraction, polar=route) for route in ROUTES)
    torch.testing.assert_close(svd, eigen, **close)


def test_merging_orthogonalizes_the_singular_vectors_that_interfere():
    """Two rank-one tasks at an angle, worked out by hand: the nearest frame is symmetric."""
    cos, sin = math.cos(0.4), math.sin(0.4)
    a = torch.tensor([cos, sin, 0.0], dtype=torch.float64)
    b = torch.tensor([cos, -sin, 0.0], dtype=torch.float64)
    # Both turn away from their bisector until they are perpendicular: 45 degrees from it.
    half = math.sqrt(0.5)
    p = torch.tensor([half, half, 0.0], dtype=torch.float64)
    q = torch.tensor([half, -half, 0.0], dtype=torch.float64)
    deltas = torch.stack([3 * torch.outer(a, a), 2 * torch.outer(b, b)])
    expected = 3 * torch.outer(p, p) + 2 * torch.outer(q, q)
    torch.testing.assert_close(merge_matrix(deltas, rank_fraction=0.34), expected, **close)


@pytest.mark.parametrize("route", ROUTES)
def test_rotating_the_activations_rotates_the_merged_layer(route):
    deltas = randn(3, 24, 16)
    left, right = torch.linalg.qr(randn(24, 24)).Q, torch.linalg.qr(randn(16, 16)).Q
    merged = merge_matrix(left @ deltas @ right, polar=route)
    torch.testing.assert_close(merged, left @ merge_matrix(deltas, polar=route) @ right, **close)


def test_full_share_keeps_every_triplet():
    """Square and concatenated beyond a side: rows, not columns, become orthonormal."""
    deltas = randn(3, 8, 8)
    u, s, vh = torch.linalg.svd(deltas)
    u, s, vh = torch.cat([*u], dim=1), s.flatten(), torch.cat([*vh])
    expected = polar_factor(u) @ torch.diag(s) @ polar_factor(vh)
    torch.testing.assert_close(merge_matrix(deltas, rank_fraction=1.0), expected, **close)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_task_that_changed_nothing_has_no_influence(shape, route):
    deltas = randn(3, *shape)
    deltas[1] = 0
    merged = merge_matrix(deltas, rank_fraction=0.25, polar=route)
    others = merge_matrix(deltas[[0, 2]], rank_fraction=0.25, polar=route)
    torch.testing.assert_close(merged, others, **close)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_identical_tasks_merge_to_what_each_of_them_keeps(shape, route):
    """Their copies span one set of directions; rounding must not invent others."""
    delta = randn(*shape)
    u, s, vh = torch.linalg.svd(delta, full_matrices=False)
    merged = merge_matrix(delta.expand(3, *shape), polar=route)
    torch.testing.assert_close(merged, u[:, :8] * s[:8] @ vh[:8], **close)


@pytest.mark.parametrize(("rank_fraction", "rank"), [(None, 3), (0.25, 3), (0.5, 6), (1.0, 12)])
def test_compression_error_is_the_tail_of_the_spectrum(rank_fraction, rank):
    vectors = random_vectors(4)
    served = methods.tsv_compress(vectors, rank_fraction=rank_fraction)
    for task, vector in vectors.items():
        compressed = served[task]["proj"]
        assert torch.linalg.matrix_rank(compressed) == rank
        tail = torch.linalg.svdvals(vector["proj"])[rank:].norm()  # Eckart-Young
        torch.testing.assert_close((compressed - vector["proj"]).norm(), tail, **close)


def test_compression_takes_every_matrix_and_leaves_the_rest_whole():
    vectors = random_vectors(3)
    served = methods.tsv_compress(vectors)["task1"]
    assert torch.linalg.matrix_rank(served["text_projection"]) == 2
    assert torch.linalg.matrix_rank(served["in_proj_weight"]) == 3
    for name in ("conv1.weight", "bias", "logit_scale"):
        assert torch.equal(served[name], vectors["task1"][name])
