"""Theorems of the two halves of TSV-M, in float64."""

import pytest
import torch
from made_up.vectors import close, randn, random_vectors

from tsv_bench import methods
from tsv_bench.linalg.polar import polar_factor
from tsv_bench.methods.matrixwise.tsv import merge_matrix
from tsv_bench.methods.matrixwise.tsv_ablations import (
    merge_full_rank,
    tsv_interference_only,
    tsv_low_rank,
)

SHAPES = [(24, 24), (40, 24), (24, 40)]
ROUTES = ["svd", "eigen"]


def vectors_of(deltas):
    """One matrix and one bias a task."""
    return {f"task{t}": {"proj": delta, "bias": randn(5)} for t, delta in enumerate(deltas)}


def orthogonal_tasks(m, n, rank=2):
    """Three matrices of this rank whose columns, and rows, have nothing in common."""
    u = torch.linalg.qr(randn(m, 3 * rank)).Q.split(rank, dim=1)
    v = torch.linalg.qr(randn(n, 3 * rank)).Q.split(rank, dim=1)
    scales = torch.linspace(3, 0.5, rank, dtype=torch.float64)
    return torch.stack([scales * ui @ vi.mT for ui, vi in zip(u, v, strict=True)])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_interference_only_sums_tasks_that_do_not_interfere(shape, route):
    deltas = orthogonal_tasks(*shape, rank=5)
    served = tsv_interference_only(vectors_of(deltas), polar=route)["task0"]
    torch.testing.assert_close(served["proj"], deltas.sum(0), **close)
    # Full rank: TSV-M at its default rank would have kept no more than this of each.
    assert torch.linalg.matrix_rank(served["proj"]) == 15


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_interference_only_is_the_full_concatenation_made_orthonormal(shape, route):
    deltas = randn(3, *shape)
    u, s, vh = torch.linalg.svd(deltas, full_matrices=False)
    expected = polar_factor(torch.cat([*u], dim=1)) * s.flatten() @ polar_factor(torch.cat([*vh]))
    served = tsv_interference_only(vectors_of(deltas), polar=route)["task0"]
    torch.testing.assert_close(served["proj"], expected, **close)
    assert not torch.allclose(served["proj"], deltas.sum(0)), "these tasks do interfere"


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 7])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 1), (1, 5), (12, 50)])
def test_interference_only_needs_no_singular_vectors(shape, num_tasks):
    """Fewer rows than columns in all and no task too many, with one that changed nothing."""
    deltas = randn(num_tasks + 1, *shape)
    deltas[num_tasks // 2] = 0
    expected = merge_matrix(deltas, rank_fraction=1.0, svd="svd", polar="svd")
    torch.testing.assert_close(merge_full_rank(deltas), expected, **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_interference_only_of_deltas_without_full_rank(shape):
    deltas = randn(3, *shape)
    deltas[1] = randn(shape[0], 9) @ randn(9, shape[1])
    expected = merge_matrix(deltas, rank_fraction=1.0, svd="svd", polar="svd")
    torch.testing.assert_close(merge_full_rank(deltas), expected, **close)


def test_interference_only_averages_square_matrices_of_full_rank():
    """Whatever interferes: singular vectors are complete, and what all tasks span is everything."""
    deltas = randn(4, 24, 24)
    deltas[1] = deltas[0] + 0.1 * deltas[1]
    torch.testing.assert_close(merge_full_rank(deltas), deltas.mean(dim=0), **close)
    mean = deltas[:, :, :20].mean(dim=0)
    assert not torch.allclose(merge_full_rank(deltas[:, :, :20]), mean, rtol=0.1)


@pytest.mark.parametrize("alike", [1.0, 1e-2, 0.0])
def test_interference_only_in_float32(alike):
    """Tasks that are alike leave a sum of projections that float32, or any type, cannot invert."""
    deltas = alike * randn(4, 24, 60) + randn(24, 60)
    expected = merge_matrix(deltas, rank_fraction=1.0, svd="svd", polar="svd")
    error = (merge_full_rank(deltas.float()).double() - expected).norm() / expected.norm()
    assert error < (1e-6 if alike == 1 else 1e-4)


@pytest.mark.parametrize(("rank_fraction", "rank"), [(None, 8), (0.25, 6), (1.0, 24)])
@pytest.mark.parametrize("shape", SHAPES)
def test_low_rank_only_is_the_concatenation_without_polar_factors(shape, rank_fraction, rank):
    deltas = randn(3, *shape)
    u, s, vh = torch.linalg.svd(deltas, full_matrices=False)
    u, s, vh = u[..., :rank], s[:, :rank], vh[:, :rank]
    expected = torch.cat([*u], dim=1) * s.flatten() @ torch.cat([*vh])
    served = tsv_low_rank(vectors_of(deltas), rank_fraction=rank_fraction)["task0"]
    torch.testing.assert_close(served["proj"], expected, **close)


def test_low_rank_only_is_the_sum_of_what_compression_serves():
    vectors = random_vectors(3)
    merged, own = tsv_low_rank(vectors)["task0"], methods.tsv_compress(vectors)
    for name in ("in_proj_weight", "proj", "c_proj.weight"):
        torch.testing.assert_close(merged[name], sum(own[t][name] for t in own), **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_low_rank_at_full_rank_is_task_arithmetic(shape):
    vectors = vectors_of(randn(3, *shape))
    merged = tsv_low_rank(vectors, rank_fraction=1.0)["task0"]["proj"]
    expected = methods.task_arithmetic(vectors)["task0"]["proj"]
    torch.testing.assert_close(merged, expected, **close)


@pytest.mark.parametrize("ablation", [tsv_low_rank, tsv_interference_only])
@pytest.mark.parametrize("shape", SHAPES)
def test_ablations_are_tsv_merge_where_the_other_half_has_nothing_to_do(shape, ablation):
    vectors = vectors_of(orthogonal_tasks(*shape))
    merged = methods.tsv_merge(vectors)["task0"]
    torch.testing.assert_close(ablation(vectors)["task0"]["proj"], merged["proj"], **close)


@pytest.mark.parametrize("ablation", [tsv_low_rank, tsv_interference_only])
def test_ablations_average_what_tsv_merge_averages(ablation):
    vectors = random_vectors(3)
    merged, mean = ablation(vectors)["task0"], methods.weight_average(vectors)["task0"]
    for name in ("text_projection", "conv1.weight", "bias", "logit_scale"):
        torch.testing.assert_close(merged[name], mean[name], rtol=0, atol=0)


@pytest.mark.parametrize("ablation", [tsv_low_rank, tsv_interference_only])
@pytest.mark.parametrize("shape", SHAPES)
def test_ablations_of_one_task_are_that_task(shape, ablation):
    [delta] = deltas = randn(1, *shape)
    torch.testing.assert_close(ablation(vectors_of(deltas))["task0"]["proj"], delta, **close)
