"""Inverse square roots without eigenvectors, against those by eigenvectors in float64."""

import pytest
import torch
from made_up.vectors import randn

from tsv_bench.linalg import inverse_roots
from tsv_bench.linalg.inverse_roots import (
    orthonormal_rows,
    row_root,
    times_inverse_root,
)
from tsv_bench.linalg.lapack import condition
from tsv_bench.linalg.polar import polar_factor
from tsv_bench.linalg.svd import lower_gram
from tsv_bench.linalg.tridiagonal_roots import LARGEST_CONDITION, InverseRootOfMatrix


def with_condition(m, n, condition):
    """A matrix whose singular values fall from 1 by this factor, evenly in logarithms."""
    u, _, vh = torch.linalg.svd(randn(m, n), full_matrices=False)
    values = torch.logspace(0, -1, m, dtype=torch.float64) ** torch.tensor(condition).log10()
    return u * values @ vh


@pytest.mark.parametrize("shape", [(1, 1), (30, 30), (30, 70)])
@pytest.mark.parametrize("size", [1.0, 1e3, 1e5])
def test_rows_of_a_row_root_are_an_orthonormal_basis(shape, size):
    a = with_condition(*shape, size)
    rows = orthonormal_rows(a, row_root(a))
    torch.testing.assert_close(rows @ rows.mT, torch.eye(len(a)).double(), rtol=0, atol=1e-9)
    vh = torch.linalg.svd(a, full_matrices=False).Vh  # the basis may be another, the space not
    torch.testing.assert_close(rows.mT @ rows, vh.mT @ vh, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(30, 30), (30, 70)])
@pytest.mark.parametrize("size", [1.0, 10.0, 1e3, 1e5, 8e5])
def test_condition_is_an_upper_bound_and_not_a_loose_one(shape, size):
    found = row_root(with_condition(*shape, size))
    assert size <= found.condition <= 30 * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependent_rows_have_no_row_root(dtype):
    dependent = randn(20, 30)
    dependent[7] = dependent[3] - 2 * dependent[11]
    assert row_root(dependent.to(dtype)) is None
    assert row_root(torch.zeros(20, 30, dtype=dtype)) is None
    assert row_root(with_condition(20, 30, 2e6)) is None
    assert row_root(randn(20, 30).to(dtype)) is not None
    assert condition(torch.diag(torch.tensor([1.0, 0.0])).double()) == float("inf")


@pytest.mark.parametrize("tasks", ["apart", "alike", "the same"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_times_the_inverse_root_of_all_are_their_polar_factor(dtype, tasks):
    """Whatever way is taken: conditions from 6 to infinity."""
    shared = torch.linalg.qr(randn(60, 20)).Q.mT
    own = {"apart": 1.0, "alike": 1e-3, "the same": 0.0}[tasks]
    each = [torch.linalg.qr((shared + own * randn(20, 60)).mT).Q.mT for _ in range(4)]
    rows = torch.cat(each)
    found = times_inverse_root(rows.to(dtype), rows.to(dtype))
    share = {torch.float32: 2e-6 if tasks != "alike" else 1e-3, torch.float64: 1e-7}[dtype]
    expected = polar_factor(rows)
    assert (found.double() - expected).norm() < share * expected.norm()


def test_each_way_is_taken_where_it_is_right(monkeypatch):
    """float32 is left where it has too few digits, tridiagonal form where there is no inverse."""
    tried = []

    class Watched(InverseRootOfMatrix):
        def __init__(self, matrix):
            tried.append(matrix.dtype)
            super().__init__(matrix)

    monkeypatch.setattr(inverse_roots, "InverseRootOfMatrix", Watched)
    rows = torch.cat([torch.linalg.qr(randn(60, 20)).Q.mT for _ in range(4)])
    limit = inverse_roots.WELL_CONDITIONED
    inside = InverseRootOfMatrix(lower_gram(rows)).condition
    for allowed, dtypes in (
        (2 * inside, [torch.float32]),
        (inside / 2, [torch.float32, torch.float64]),
    ):
        tried.clear()
        monkeypatch.setattr(inverse_roots, "WELL_CONDITIONED", allowed)
        times_inverse_root(rows.float(), rows.float())
        assert tried == dtypes
    assert limit < LARGEST_CONDITION
