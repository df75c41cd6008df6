"""Measures of interference in float64: theorems, and the definitions computed plainly.

Rounding leaves about 1e-14 of values around 1; `close` is 1e-10.
"""

import itertools
import math
from dataclasses import fields

import pytest
import torch
from made_up.vectors import close, randn

from tsv_bench.analysis.measures import Settings, energy_shares, measure

SHAPES = [(12, 12), (30, 10), (10, 30)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def of(deltas, **settings):
    """Measure one matrix, given as a list of deltas."""
    vectors = {f"task{i}": {"w": delta} for i, delta in enumerate(deltas)}
    [layer] = measure(vectors, Settings(**settings))
    [matrix] = layer.matrices
    return matrix


def orthogonal(side, columns):
    return torch.linalg.qr(randn(side, columns)).Q


def with_values(values, left, right):
    return left * torch.tensor(values, dtype=torch.float64) @ right.mT


def disjoint(num_tasks, m, n, rank=2):
    """Make tasks whose singular vectors are orthogonal to those of all others."""
    left, right = orthogonal(m, num_tasks * rank), orthogonal(n, num_tasks * rank)
    return [
        with_values([2.0, 1.0], left[:, i : i + rank], right[:, i : i + rank])
        for i in range(0, num_tasks * rank, rank)
    ]


def apart(matrix):
    """Return the entries that belong to two different tasks."""
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


@every_shape
def test_orthogonal_tasks_do_not_interfere(shape):
    found = of(disjoint(3, *shape), rank_fraction=0.2)
    assert found.rank == 2
    assert found.raw == pytest.approx(0, abs=1e-10) == found.merged
    for each in (found.pairs, apart(found.left_cosines), apart(found.right_cosines)):
        torch.testing.assert_close(each, torch.zeros_like(each), **close)
    assert found.left_spanned == found.right_spanned == 6
    assert max(found.left_error, found.right_error) < 1e-10


@every_shape
def test_tasks_that_share_a_subspace_are_told_from_those_that_do_not(shape):
    m, n = shape
    left, right = orthogonal(m, 2), orthogonal(n, 2)
    turned = [left @ orthogonal(2, 2), right @ orthogonal(2, 2)]
    same = of([with_values([2.0, 1.0], left, right), with_values([2.0, 1.0], *turned)])
    others = of([with_values([2.0, 1.0], left, right), disjoint(1, m, n)[0]])
    assert same.rank == others.rank > 2
    for cosines in (same.left_cosines, same.right_cosines):
        torch.testing.assert_close(cosines, torch.ones_like(cosines), **close)
    # Random planes in ten dimensions have 2 / 10 on average; planes that are close have about 1.
    for cosines in (others.left_cosines, others.right_cosines):
        assert apart(cosines).max() < 0.7
    assert same.raw > 1.5 * others.raw > 0


@every_shape
def test_identical_tasks_have_one_subspace_and_no_orthonormal_factor(shape):
    delta = randn(*shape)
    found = of([delta, delta, delta])
    for cosines in (found.left_cosines, found.right_cosines):
        torch.testing.assert_close(cosines, torch.ones(3, 3, dtype=torch.float64), **close)
    assert found.left_spanned == found.right_spanned == found.rank
    # Three copies of a column share one direction, and each gets a third of it.
    assert found.left_error == pytest.approx(2 / 3) == found.right_error


@every_shape
@pytest.mark.parametrize("polar", ["eigen", "svd"])
def test_polar_factors_remove_interference_where_there_is_room(shape, polar):
    found = of([randn(*shape) for _ in range(3)], polar=polar)
    assert 3 * found.rank <= min(shape)
    assert found.raw > 1 and found.merged == pytest.approx(0, abs=1e-10)
    assert found.left_spanned == found.right_spanned == 3 * found.rank
    assert max(found.left_error, found.right_error) < 1e-10


def test_without_room_interference_stays():
    found = of([randn(30, 10) for _ in range(3)], rank_fraction=0.6)
    assert (found.left_spanned, found.right_spanned) == (18, 10)  # of 18 directions
    assert found.left_error < 1e-10 and found.right_error < 1e-10  # on the thin side
    assert found.merged < 1e-10  # the left side is orthonormal, and a product is zero
    assert of([randn(12, 12) for _ in range(3)], rank_fraction=0.6).merged > 0.1


@every_shape
@pytest.mark.parametrize("fraction", [None, 0.1, 0.5, 1.0])
def test_measures_are_those_of_a_plain_computation(shape, fraction):
    deltas = [randn(*shape) + randn(*shape) for _ in range(3)]
    found, rank = of(deltas, rank_fraction=fraction), of(deltas, rank_fraction=fraction).rank
    kept = [[u[:, :rank], s[:rank], vh[:rank].mT] for u, s, vh in map(svd, deltas)]
    u, s, v = (torch.cat(parts, dim=-1) for parts in zip(*kept, strict=True))
    assert found.raw == pytest.approx(sti(u, s, v), rel=1e-10)
    assert found.merged == pytest.approx(sti(nearest(u), s, nearest(v)), rel=1e-8, abs=1e-10)
    for i, j in itertools.combinations(range(3), 2):
        two = [torch.cat(parts, dim=-1) for parts in zip(kept[i], kept[j], strict=True)]
        assert found.pairs[i, j] + found.pairs[j, i] == pytest.approx(sti(*two), rel=1e-10)
        for cosines, side in ((found.left_cosines, 0), (found.right_cosines, 2)):
            angles = torch.linalg.svdvals(kept[i][side].mT @ kept[j][side])
            assert cosines[i, j] == pytest.approx(float(angles.square().mean()), rel=1e-10)
    for i, delta in enumerate(deltas):
        energy = float(kept[i][1].square().sum() / delta.square().sum())
        assert found.kept_energy[i] == pytest.approx(energy, rel=1e-10)
        assert found.largest[i] == pytest.approx(float(torch.linalg.matrix_norm(delta, 2)))


def svd(delta):
    return torch.linalg.svd(delta, full_matrices=False)


def nearest(factor):
    u, _, vh = svd(factor)
    return u @ vh


def sti(u, s, v):
    one = torch.eye(len(s), dtype=torch.float64)
    return float(((u.mT @ u - one) @ torch.diag(s) @ (v.mT @ v - one)).abs().sum())


def permuted(matrix, order):
    """Return the measures with the tasks in another order."""
    values = {field.name: getattr(matrix, field.name) for field in fields(matrix)}
    return {
        name: value
        if not isinstance(value, torch.Tensor)
        else value[order][:, order]
        if name in ("pairs", "left_cosines", "right_cosines")
        else value[order]
        for name, value in values.items()
    }


@every_shape
def test_order_of_tasks_permutes_what_is_of_tasks(shape):
    deltas, order = [randn(*shape) for _ in range(4)], [2, 0, 3, 1]
    expected = permuted(of(deltas), order)
    same(permuted(of([deltas[i] for i in order]), [0, 1, 2, 3]), expected)


@every_shape
def test_turning_the_spaces_changes_nothing_and_scale_only_what_has_one(shape):
    m, n = shape
    deltas, left, right = [randn(m, n) for _ in range(3)], orthogonal(m, m), orthogonal(n, n)
    before = permuted(of(deltas), [0, 1, 2])
    same(permuted(of([left @ delta @ right for delta in deltas]), [0, 1, 2]), before)
    tripled = permuted(of([3 * delta for delta in deltas]), [0, 1, 2])
    for name in ("raw", "pairs", "largest"):
        before[name] = 3 * before[name]
    same(tripled, before)


def same(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **close, msg=lambda text, n=name: n + text)


@every_shape
def test_a_task_that_changed_nothing_has_no_directions_and_disturbs_no_other(shape):
    deltas = [randn(*shape), torch.zeros(shape, dtype=torch.float64), randn(*shape)]
    found, others = of(deltas, rank_fraction=0.3), of(deltas[::2], rank_fraction=0.3)
    assert (found.raw, found.merged) == pytest.approx((others.raw, others.merged), abs=1e-10)
    assert found.left_error < 1e-10 and found.left_spanned == others.left_spanned
    same(permuted(found, [0, 2]), permuted(others, [0, 1]))
    for name in ("effective_rank", "stable_rank", "kept_energy"):
        assert math.isnan(getattr(found, name)[1])
    assert found.left_cosines[1].isnan().all() and not found.pairs[1].any()


@every_shape
def test_all_energy_is_kept_at_full_rank(shape):
    found = of([randn(*shape) for _ in range(2)], rank_fraction=1.0)
    torch.testing.assert_close(found.kept_energy, torch.ones(2, dtype=torch.float64), **close)
    assert found.energy.shape == (2, len(energy_shares()))
    assert (found.energy.diff() >= 0).all() and (found.energy[:, 0] > 0).all()
    torch.testing.assert_close(found.energy[:, -1], torch.ones(2, dtype=torch.float64), **close)


def test_float32_is_measured_as_float64_is():
    deltas = [randn(40, 24) for _ in range(3)]
    found = permuted(of([delta.float() for delta in deltas]), [0, 1, 2])
    for name, expected in permuted(of(deltas), [0, 1, 2]).items():
        if name in ("left_error", "right_error", "merged"):
            assert found[name] < 1e-6  # rounding, in float32
        else:
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def test_split_projection_is_measured_as_three_matrices():
    deltas = [randn(36, 12) for _ in range(3)]
    vectors = {f"task{i}": {"in_proj_weight": delta} for i, delta in enumerate(deltas)}
    [layer] = measure(vectors, Settings(split_qkv=True))
    for index, piece in enumerate(layer.matrices):
        alone = of([delta[12 * index : 12 * index + 12] for delta in deltas])
        same(permuted(piece, [0, 1, 2]), permuted(alone, [0, 1, 2]))
    assert len(layer.matrices) == 3 and layer.shape == (36, 12)
