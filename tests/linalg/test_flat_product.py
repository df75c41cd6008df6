"""Theorems of products with flat spectra, in float64."""

import pytest
import torch
from made_up.vectors import close, randn
from torch.linalg import qr, svd, svdvals

from tsv_bench.linalg import flat_product as module
from tsv_bench.linalg.flat_product import flat_product

SHAPES = [(30, 12, 20), (12, 30, 20), (20, 12, 30), (20, 30, 12), (20, 20, 12), (9, 1, 9)]


def flattened(a):
    u, s, vh = svd(a, full_matrices=False)
    spanned = s > 1e-7 * s[0]
    return s.mean() * u[:, spanned] @ vh[spanned]


@pytest.mark.parametrize("shape", SHAPES)
def test_both_factors_get_their_mean_singular_value(shape):
    m, k, n = shape
    u, v = randn(m, k), randn(k, n)
    # Their Gram matrices square the condition numbers, here up to 1e3.
    near = {"rtol": 1e-8, "atol": 1e-8}
    torch.testing.assert_close(flat_product(u, v), flattened(u) @ flattened(v), **near)


@pytest.mark.parametrize("shape", SHAPES)
def test_directions_that_a_factor_lacks_stay_zero_and_lower_the_mean(shape):
    m, k, n = shape
    u, v = randn(m, 1) @ randn(1, k), randn(k, n)
    found = flat_product(u, v)
    torch.testing.assert_close(found, flattened(u) @ flattened(v), **close)
    assert svdvals(found)[1:].sum() < 1e-9


def test_orthonormal_factors_are_multiplied_as_they_are():
    u, v = qr(randn(30, 12)).Q, qr(randn(20, 12)).Q.mT
    torch.testing.assert_close(flat_product(u, v), u @ v, **close)


@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_not_exact_it_is_rounded_as_in_float32(shape, monkeypatch):
    m, k, n = shape
    u, v = randn(m, k), randn(k, n)
    expected = flat_product(u, v)
    monkeypatch.setattr(module, "FEW", 4)
    monkeypatch.setattr(module, "InverseRoot", None)
    before = u.clone(), v.clone()
    found = flat_product(u, v, exact=False)
    assert (found - expected).norm() < 5e-6 * expected.norm()
    assert torch.equal(u, before[0]) and torch.equal(v, before[1])


def test_what_lacks_rank_gets_eigenvectors_after_all(monkeypatch):
    u, v = randn(30, 3) @ randn(3, 12), randn(12, 20)
    expected = flat_product(u, v)
    monkeypatch.setattr(module, "FEW", 4)
    found = flat_product(u, v, exact=False)
    assert (found - expected).norm() < 5e-6 * expected.norm()
    assert svdvals(found)[3:].sum() < 1e-9  # nothing of what rounding to float32 leaves
