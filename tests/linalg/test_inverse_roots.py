"""Inverse square roots without eigenvectors, against those by eigenvectors in float64."""

import pytest
import torch
from made_up.vectors import close, randn

from tsv_bench.linalg import inverse_roots
from tsv_bench.linalg.inverse_roots import (
    InverseRootOfMatrix,
    orthonormal_rows,
    poles,
    row_root,
    times_inverse_root,
)
from tsv_bench.linalg.lapack import Tridiagonal, condition
from tsv_bench.linalg.polar import polar_factor
from tsv_bench.linalg.svd import lower_gram


def with_condition(m, n, condition):
    """A matrix whose singular values fall from 1 by this factor, evenly in logarithms."""
    u, _, vh = torch.linalg.svd(randn(m, n), full_matrices=False)
    values = torch.logspace(0, -1, m, dtype=torch.float64) ** torch.tensor(condition).log10()
    return u * values @ vh


def inverse_root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.rsqrt() @ vectors.mT


@pytest.mark.parametrize("error", [1e-3, 1e-7, 1e-10])
@pytest.mark.parametrize("condition", [1.0, 1.001, 40.0, 1e4, 1e6])
def test_poles_are_the_inverse_root_within_the_error(condition, error):
    x = 0.3 * torch.logspace(0, torch.tensor(condition).log10(), 1001, dtype=torch.float64)
    total = sum(weight / (x + shift) for shift, weight in poles(0.3, 0.3 * condition, error))
    assert (total * x.sqrt() - 1).abs().max() <= error
    assert all(shift > 0 and weight > 0 for shift, weight in poles(0.3, 0.3 * condition, error))


@pytest.mark.parametrize("n", [1, 2, 3, 64, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tridiagonal_form_is_a_rotation_of_the_matrix(n, dtype):
    matrix = randn(n, n).to(dtype)
    matrix = matrix + matrix.mT
    torn = matrix.tril() + torch.full_like(matrix, torch.nan).triu(1)  # the lower triangle is read
    found = Tridiagonal(torn)
    t = (
        torch.diag(found.diagonal)
        + torch.diag(found.off_diagonal, 1)
        + torch.diag(found.off_diagonal, -1)
    )
    q = torch.eye(n, dtype=dtype)
    found.apply_q(q)  # its rows are those of q^T
    rounding = {"rtol": 0, "atol": 200 * torch.finfo(dtype).eps}
    torch.testing.assert_close(q @ q.mT, torch.eye(n, dtype=dtype), **rounding)
    torch.testing.assert_close(q.mT @ t @ q, matrix, **rounding)
    back = q.clone()
    found.apply_q(back, transposed=True)
    torch.testing.assert_close(back, torch.eye(n, dtype=dtype), **rounding)


@pytest.mark.parametrize("n", [1, 2, 3, 40, 130])
@pytest.mark.parametrize("rows", [1, 7])
def test_product_with_the_inverse_root(n, rows):
    a, x = randn(n, n + 5), randn(rows, n)
    before = x.clone()
    found = InverseRootOfMatrix((a @ a.mT).tril()).times(x)
    torch.testing.assert_close(found, x @ inverse_root(a @ a.mT), **close)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


@pytest.mark.parametrize(("squared", "share"), [(1e2, 3e-6), (1e4, 3e-4)])
def test_float32_loses_digits_by_the_condition_number(squared, share):
    a = with_condition(300, 300, squared**0.5)
    matrix, x = a @ a.mT, randn(20, 300)
    root = InverseRootOfMatrix(matrix.float())
    assert root.condition == pytest.approx(squared, rel=1e-2)
    expected = x @ inverse_root(matrix)
    assert (root.times(x.float()).double() - expected).norm() < share * expected.norm()


def test_what_has_no_inverse_root_to_speak_of_is_refused():
    for matrix in (torch.zeros(4, 4), torch.diag(torch.tensor([1.0, 1e-8])), -torch.eye(3)):
        with pytest.raises(ArithmeticError, match="condition number of .* is too large"):
            InverseRootOfMatrix(matrix.double())


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
    assert limit < inverse_roots.LARGEST_CONDITION
