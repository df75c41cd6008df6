"""Theorems of systems with a positive semidefinite matrix, in float64."""

import pytest
import torch
from made_up.vectors import close, randn

from tsv_bench.linalg.semidefinite import semidefinite_zero, solve_semidefinite

EXACT = semidefinite_zero(12, torch.float64)


@pytest.mark.parametrize("rank", [1, 5, 12, 30])
def test_it_is_the_pseudo_inverse(rank):
    """Of unequal columns: scaling the diagonal must not choose another one of many solutions."""
    x = randn(rank, 12) * torch.logspace(0, 2, 12, dtype=torch.float64)
    a, b = x.mT @ x, randn(7, rank) @ x
    found = solve_semidefinite(b, a, EXACT)
    torch.testing.assert_close(found @ a, b, rtol=1e-9, atol=1e-9)
    values, vectors = torch.linalg.eigh(a)
    spanned = vectors[:, 12 - min(rank, 12) :]
    expected = b @ spanned / values[12 - min(rank, 12) :] @ spanned.mT
    # The condition number is 1e4 squared for the columns' lengths.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_dead_input_is_left_at_zero_without_eigenvectors(monkeypatch):
    monkeypatch.setattr("tsv_bench.linalg.semidefinite.eigh", None)
    x = randn(30, 12)
    x[:, [0, 7]] = 0
    a, truth = x.mT @ x, randn(5, 12)
    truth[:, [0, 7]] = 0
    torch.testing.assert_close(solve_semidefinite(truth @ a, a, EXACT), truth, **close)


def test_nothing_is_solved_as_nothing():
    a = torch.zeros(4, 4, dtype=torch.float64)
    assert not solve_semidefinite(torch.zeros(3, 4, dtype=torch.float64), a, EXACT).any()


@pytest.mark.parametrize("exponent", [-100, 100])
def test_scale_does_not_matter(exponent):
    x, b = randn(5, 12), randn(7, 5)
    a, b = x.mT @ x, b @ x
    scaled = solve_semidefinite(b * 2.0**exponent, a * 2.0**exponent, EXACT)
    torch.testing.assert_close(scaled, solve_semidefinite(b, a, EXACT), rtol=0, atol=0)


def test_what_rounding_to_float32_adds_to_a_null_space_counts_as_zero():
    """Eight directions of 64 were rounded; those that are left are off by rounding only."""
    x = randn(56, 64)
    a, truth = x.mT @ x, randn(3, 56) @ x
    rounded = a.float().double()
    assert torch.linalg.eigvalsh(rounded)[:8].abs().max() > 1e-9  # not zero any more
    found = solve_semidefinite(truth @ a, rounded, semidefinite_zero(64, torch.float32))
    assert (found - truth).norm() < 1e-2 * truth.norm()
    wrong = solve_semidefinite(truth @ a + randn(3, 64), rounded, 1e-14)
    assert (wrong - truth).norm() > 10 * truth.norm()
