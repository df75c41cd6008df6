"""Theorems of polar factors, in float64."""

import math

import pytest
import torch

from tsv_bench.linalg import polar
from tsv_bench.linalg.block_bidiagonal import LargePolar
from tsv_bench.linalg.polar import inverse_root, polar_factor
from tsv_bench.linalg.svd import truncated_svd

# float64 everywhere: SVD rounding is ~1e-14 here, so 1e-10 separates a wrong algorithm from a
# rounded right one with room on both sides.
close = {"rtol": 1e-10, "atol": 1e-10}
SHAPES = [(24, 24), (40, 24), (24, 40)]
ROUTES = ["svd", "eigen"]


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


@pytest.fixture(params=["eigenvectors", "tridiagonal form"])
def way(request, monkeypatch):
    """Both ways to an inverse root, whatever the size."""
    if request.param == "tridiagonal form":
        monkeypatch.setattr(polar, "FEW", 0)
    return request.param


def deficient(m, n, rank):
    return randn(m, rank) @ randn(rank, n)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_polar_factor_leaves_a_symmetric_positive_factor(shape, route, way):
    """a = p h with p orthonormal and h positive semi-definite determines p = a (a^T a)^(-1/2)."""
    a = randn(*shape)
    a = a if shape[0] >= shape[1] else a.mT  # then its columns can be orthonormal
    p = polar_factor(a, route)
    h = p.mT @ a
    torch.testing.assert_close(p.mT @ p, torch.eye(a.shape[1], dtype=torch.float64), **close)
    torch.testing.assert_close(h, h.mT, **close)
    torch.testing.assert_close(h @ h, a.mT @ a, **close)
    assert torch.linalg.eigvalsh(h).min() > 0
    torch.testing.assert_close(polar_factor(a.mT, route), p.mT, **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_routes_to_the_polar_factor_agree(shape):
    a = randn(*shape)
    torch.testing.assert_close(polar_factor(a, "eigen"), polar_factor(a, "svd"), **close)


@pytest.mark.parametrize("route", ROUTES)
def test_eigen_route_does_not_square_the_condition_number_in_float32(route, way):
    # As bad as the worst concatenation measured on fine-tuned CLIPs; a float32 Gram matrix is
    # off by 7% there, and 1e-2 is ten times the 1e-3 that eps * 2e4 allows.
    u, v = torch.linalg.qr(randn(40, 24)).Q, torch.linalg.qr(randn(24, 24)).Q
    a = (u * torch.logspace(0, -4.3, 24, dtype=torch.float64) @ v).float()
    p = polar_factor(a, route)
    assert p.dtype == torch.float32
    torch.testing.assert_close(p, (u @ v).float(), rtol=0, atol=1e-2)
    torch.testing.assert_close(p.mT @ p, torch.eye(24), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_polar_factor_of_a_deficient_matrix_is_the_partial_isometry(shape, route, dtype, way):
    """Orthonormal on what the matrix spans, zero elsewhere; rounding must not fill the rest."""
    a = deficient(*shape, rank=5)
    u, _, vh = truncated_svd(a, 5)
    # The eigenvalue route halves the digits of a singular value that is nearly zero, not these.
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    p = polar_factor(a.to(dtype), route)
    torch.testing.assert_close(p, (u @ vh).to(dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3, 0), (0, 3)])
def test_polar_factor_of_nothing_is_nothing(shape, route):
    assert torch.equal(polar_factor(torch.zeros(shape), route), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(90, 40, 50), (50, 40, 90), (40, 40, 40), (30, 60, 80)])
@pytest.mark.parametrize("condition", [2.0, 1e4])
def test_polar_product_is_that_of_the_two_polar_factors(shape, condition, way):
    m, k, n = shape
    generator = torch.Generator().manual_seed(3)

    def matrix(rows, columns):
        q = torch.linalg.qr(torch.randn(rows, columns, generator=generator).double()).Q
        w = torch.linalg.qr(torch.randn(columns, columns, generator=generator).double()).Q
        return q * torch.logspace(0, -math.log10(condition), q.shape[1]).double() @ w[: q.shape[1]]

    u, vh = matrix(m, k), matrix(n, k).mT
    s = torch.rand(k, generator=generator).double()
    expected = polar_factor(u, "svd") * s @ polar_factor(vh, "svd")
    torch.testing.assert_close(polar.polar_product(u, s, vh), expected, rtol=0, atol=1e-8)
    rounded = [x.float() for x in (u, s, vh)]
    exact = [x.double() for x in rounded]
    expected = polar_factor(exact[0]) * exact[1] @ polar_factor(exact[2])
    error = (polar.polar_product(*rounded).double() - expected).norm() / expected.norm()
    assert error < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rank", "taken"), [(24, True), (23, False)])
def test_what_lacks_rank_is_left_to_eigenvectors(rank, taken, dtype, monkeypatch):
    asked = []
    monkeypatch.setattr(polar, "FEW", 0)
    monkeypatch.setattr(polar, "eigh", lambda gram: asked.append(gram) or torch.linalg.eigh(gram))
    a = deficient(40, 24, rank).to(dtype)
    times, condition = inverse_root(a)
    assert bool(asked) != taken
    values = torch.linalg.svdvals(a.double())[:rank]
    if taken:
        assert condition == pytest.approx(float(values[0] / values[-1]), rel=1e-5)
    rows = times(a)
    assert rows.dtype == dtype
    torch.testing.assert_close(rows, polar_factor(a, "svd"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(90, 60, 20), (60, 90, 20), (20, 90, 60)])
@pytest.mark.parametrize("lacks_rank", [False, True])
def test_large_factors_are_multiplied_by_block_bidiagonal_form(shape, lacks_rank, monkeypatch):
    """Unless float32 has too few digits for them; a matrix is large from 30 columns here."""
    m, k, n = shape
    u, s, vh = randn(m, k).float(), torch.rand(k), randn(k, n).float()
    if lacks_rank:
        u[:, -1], vh[-1] = u[:, 0], vh[0]
        u[-1], vh[:, -1] = u[0], vh[:, 0]
    expected = polar_factor(u.double()) * s.double() @ polar_factor(vh.double())
    asked = []

    class Watched(LargePolar):
        def __init__(self, a):
            super().__init__(a)
            asked.append(a.shape)

    monkeypatch.setattr(polar, "LARGE", 30)
    monkeypatch.setattr(polar, "LargePolar", Watched)
    found = polar.polar_product(u, s, vh)
    assert asked == ([] if lacks_rank else [(90, 60)])
    assert found.dtype == torch.float32
    assert (found.double() - expected).norm() < 1e-5 * expected.norm()
