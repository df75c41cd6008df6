"""Inverse square roots by tridiagonal form, against those by eigenvectors in float64."""

import pytest
import torch
from made_up.vectors import close, randn

from tsv_bench.linalg import tridiagonal_roots
from tsv_bench.linalg.lapack import Tridiagonal
from tsv_bench.linalg.tridiagonal_roots import InverseRootOfMatrix, TridiagonalRoot, poles


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
@pytest.mark.parametrize("rows", [1, 7, 90])  # the last: the root is written out for most
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


def of_size(n, spread):
    """The diagonals of a positive definite tridiagonal matrix whose rows are of many sizes."""
    size = 10 ** (spread * torch.rand(n, dtype=torch.float64) - spread)
    beside = (size[:-1] * size[1:]).sqrt() * (torch.rand(n - 1, dtype=torch.float64) - 0.5)
    return size, beside


@pytest.mark.parametrize("block", [1, 4, 64])
@pytest.mark.parametrize("spread", [0, 4])
@pytest.mark.parametrize("n", [1, 2, 12, 70])
def test_a_sum_of_inverses_is_exact_row_by_row(n, spread, block, monkeypatch):
    """Also where the matrix is nearly singular, and in blocks that do not divide its size."""
    monkeypatch.setattr(tridiagonal_roots, "BLOCK", block)
    diagonal, beside = of_size(n, spread)
    if n > 8:
        beside[n // 2] = 0  # it falls apart here
    t = torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)
    shifts = [(0.0, 2.0), (1e-3, 0.5), (1.0, 3.0)]
    x = randn(5, n)
    found = TridiagonalRoot(diagonal, beside, shifts).times(x)
    expected = sum(w * x @ torch.linalg.inv(t + s * torch.eye(n).double()) for s, w in shifts)
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, **close)


def test_products_of_many_ratios_vanish():
    """Their values are far below the smallest number; processors take long for such."""
    n = 200
    diagonal, beside = torch.ones(n).double(), torch.full((n - 1,), 1e-9).double()
    root = TridiagonalRoot(diagonal, beside, [(0.0, 1.0)])
    parts = torch.cat([x.flatten() for x in (*root._blocks, *root._ends, *root._weighted)])
    assert parts[parts != 0].abs().min() > tridiagonal_roots.TINY
    torch.testing.assert_close(
        root.times(torch.eye(n).double()), torch.eye(n).double(), atol=2e-9, rtol=0
    )


def test_what_is_not_positive_definite_is_refused():
    with pytest.raises(ArithmeticError, match="dpttrf"):
        TridiagonalRoot(
            torch.tensor([1.0, 1.0]).double(), torch.tensor([2.0]).double(), [(0.0, 1.0)]
        )


@pytest.mark.parametrize("rows", [20, 200])
def test_rows_in_float32_are_rounded_as_often_as_float32_is(rows):
    a = with_condition(100, 100, 30)
    matrix, x = a @ a.mT, randn(rows, 100) @ a
    expected = x @ inverse_root(matrix)
    found = InverseRootOfMatrix(matrix).times(x.float(), torch.float32)
    assert found.dtype == torch.float32
    assert (found.double() - expected).norm() < 3e-6 * expected.norm()


def test_a_larger_condition_number_can_be_allowed():
    a = with_condition(40, 40, 3e4)
    matrix = a @ a.mT
    with pytest.raises(ArithmeticError, match="too large"):
        InverseRootOfMatrix(matrix)
    found = InverseRootOfMatrix(matrix, largest_condition=1e10, error=1e-9).times(a.mT)
    u, _, vh = torch.linalg.svd(a)
    torch.testing.assert_close(found, (u @ vh).mT, rtol=0, atol=1e-7)
