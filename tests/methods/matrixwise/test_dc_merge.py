"""Theorems of DC-Merge, in float64."""

import pytest
import torch
from made_up.vectors import close, randn
from torch.linalg import qr, svd

from tsv_bench.linalg.svd import truncated_svd
from tsv_bench.methods.matrixwise.dc_merge import merge_in_cover_bases

SHAPES = [(24, 24), (40, 24), (24, 40)]
# Random directions that fill a whole side may be nearly dependent (condition number 1e3 to 1e4);
# the polar factor goes by their Gram matrix, so rounding grows by its square.
nearly = {"rtol": 1e-7, "atol": 1e-7}


def merged(deltas, density):
    rank = min(deltas.shape[1:]) // len(deltas)
    return merge_in_cover_bases(*truncated_svd(deltas, rank), density)


def nearest_frame(a):
    u, _, vh = svd(a, full_matrices=False)
    return u @ vh


def by_definition(deltas, num_kept):
    """Entry by entry, from the definition."""
    num_tasks, rank = len(deltas), min(deltas.shape[1:]) // len(deltas)
    u, s, vh = svd(deltas, full_matrices=False)
    left = nearest_frame(torch.cat([x[:, :rank] for x in u], dim=1))
    right = nearest_frame(torch.cat([x[:rank] for x in vh])).mT
    trimmed = []
    for t in range(num_tasks):
        matrix = left.mT @ (u[t, :, :rank] @ s[t, :rank].diag() @ vh[t, :rank]) @ right
        smallest = matrix.abs().flatten().sort(descending=True).values[num_kept - 1]
        trimmed.append(torch.where(matrix.abs() >= smallest, matrix, 0.0))
    result = torch.zeros_like(trimmed[0])
    for i in range(num_tasks * rank):
        for j in range(num_tasks * rank):
            values = [float(matrix[i, j]) for matrix in trimmed if matrix[i, j] != 0]
            agreeing = [x for x in values if x * sum(values) > 0]
            if agreeing and i // rank == j // rank:
                result[i, j] = sum(agreeing) / len(agreeing)
    return left @ result @ right.mT


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("density", "num_kept"), [(0.02, 11), (0.1, 57), (0.5, 288), (1e-6, 1)])
@pytest.mark.parametrize("num_tasks", [3, 4])
def test_dc_merge_is_its_definition(shape, density, num_kept, num_tasks):
    deltas = randn(num_tasks, *shape)
    torch.testing.assert_close(merged(deltas, density), by_definition(deltas, num_kept), **nearly)


@pytest.mark.parametrize("shape", SHAPES)
def test_tasks_that_do_not_interfere_are_summed(shape):
    """Their own singular vectors are the bases, in which each is diagonal: two entries of 576."""
    u, v = (qr(randn(side, 6)).Q.split(2, dim=1) for side in shape)
    values = torch.tensor([3.0, 0.5], dtype=torch.float64)
    deltas = torch.stack([(i + 1) * values * u[i] @ v[i].mT for i in range(3)])
    torch.testing.assert_close(merged(deltas, density=2 / 576), deltas.sum(0), **close)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_kept", [1, 5, 24])
def test_one_task_keeps_its_leading_triplets(shape, num_kept):
    delta = randn(*shape)
    u, s, vh = svd(delta, full_matrices=False)
    expected = u[:, :num_kept] * s[:num_kept] @ vh[:num_kept]
    torch.testing.assert_close(merged(delta[None], num_kept / 576), expected, **close)


@pytest.mark.parametrize("density", [0.05, 1.0])
def test_nothing_leads_from_one_tasks_inputs_to_anothers_outputs(density):
    """In the cover bases only each task's own block is left, however much is kept."""
    deltas = randn(3, 40, 24)
    u, _, vh = svd(deltas, full_matrices=False)
    left = nearest_frame(torch.cat([*u[:, :, :8]], dim=1)).split(8, dim=1)
    right = nearest_frame(torch.cat([*vh[:, :8]])).split(8)
    result = merged(deltas, density)
    for i in range(3):
        for j in range(3):
            block = left[i].mT @ result @ right[j].mT
            assert (block.norm() > 1e-2) if i == j else (block.norm() < 1e-6)


@pytest.mark.parametrize("density", [0.05, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_rotating_the_activations_rotates_the_merged_layer(shape, density):
    deltas, (m, n) = randn(3, *shape), shape
    left, right = qr(randn(m, m)).Q, qr(randn(n, n)).Q
    rotated = merged(left @ deltas @ right, density)
    torch.testing.assert_close(rotated, left @ merged(deltas, density) @ right, **nearly)


def test_task_that_changed_nothing_adds_no_directions():
    deltas = randn(3, 24, 16)
    deltas[1] = 0
    # Five triplets each; the entries kept are the same share of the same 16 x 16.
    triplets = truncated_svd(deltas, 5)
    others = [x[[0, 2]] for x in triplets]
    torch.testing.assert_close(
        merge_in_cover_bases(*triplets, 0.1), merge_in_cover_bases(*others, 0.1), **close
    )
