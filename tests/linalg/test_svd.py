"""Theorems of the decompositions, in float64."""

import logging
import math

import pytest
import torch

from tsv_bench.linalg import polar
from tsv_bench.linalg.polar import polar_factor
from tsv_bench.linalg.svd import LARGE_LEAK, estimate_leak, truncated_svd
from tsv_bench.methods import ranks
from tsv_bench.methods.ranks import kept_rank

# float64 everywhere: SVD rounding is ~1e-14 here, so 1e-10 separates a wrong algorithm from a
# rounded right one with room on both sides.
close = {"rtol": 1e-10, "atol": 1e-10}
SHAPES = [(24, 24), (40, 24), (24, 40)]
ROUTES = ["svd", "eigen"]


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def deficient(m, n, rank):
    return randn(m, rank) @ randn(rank, n)


@pytest.mark.parametrize(
    ("full_rank", "num_tasks", "rank_fraction", "rank"),
    [
        (24, 5, None, 4),
        (98, 49, None, 2),  # int(98 * (1 / 49)) is 1
        (7, 1, None, 7),
        (24, 3, 2 / 24, 2),
        (100, 3, 0.29, 29),  # 0.29 * 100 is 28.999999999999996
        (100, 3, 0.299, 29),
        (24, 8, 1.0, 24),
        (24, 8, 1, 24),
    ],
)
def test_kept_rank_is_the_floor_of_the_share(full_rank, num_tasks, rank_fraction, rank):
    assert kept_rank(full_rank, num_tasks, rank_fraction) == rank


@pytest.mark.parametrize(("num_tasks", "rank_fraction"), [(9, None), (2, 0.05)])
def test_less_than_one_triplet_is_one_and_said_once(num_tasks, rank_fraction, caplog):
    ranks._warn_that_one_is_kept.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [kept_rank(8, num_tasks, rank_fraction) for _ in range(3)] == [1, 1, 1]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "each of" in caplog.text and "keeps one" in caplog.text


@pytest.mark.parametrize("rank_fraction", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_rank_fraction_out_of_range(rank_fraction):
    with pytest.raises(ValueError, match="at least one and at most all"):
        kept_rank(24, 2, rank_fraction)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 7, 24])
def test_truncated_svd_is_the_best_approximation(shape, rank):
    matrices = randn(2, 3, *shape)
    u, s, vh = truncated_svd(matrices, rank)
    error = torch.linalg.matrix_norm(u * s.unsqueeze(-2) @ vh - matrices)
    tail = torch.linalg.svdvals(matrices)[..., rank:].norm(dim=-1)  # Eckart-Young
    torch.testing.assert_close(error, tail, **close)
    eye = torch.eye(rank, dtype=torch.float64).expand(2, 3, -1, -1)
    torch.testing.assert_close(u.mT @ u, eye, **close)
    torch.testing.assert_close(vh @ vh.mT, eye, **close)
    assert (s.diff() <= 0).all()


def test_truncated_svd_of_zero_is_zero():
    u, s, vh = truncated_svd(torch.zeros(2, 3, 5), 2)
    assert (u.shape, s.shape, vh.shape) == ((2, 3, 2), (2, 2), (2, 2, 5))
    assert not s.any() and u.isfinite().all() and vh.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("route", ROUTES)
def test_half_precision_is_decomposed_in_float32(dtype, route):
    a = torch.randn(6, 4).to(dtype)
    s = truncated_svd(a, 4)[1]
    assert s.dtype == torch.float32
    assert torch.equal(s, truncated_svd(a.float(), 4)[1])
    assert torch.equal(polar_factor(a, route), polar_factor(a.float(), route))


def test_svd_that_does_not_converge_is_done_again_in_float64(monkeypatch, caplog):
    svd = torch.linalg.svd
    a = torch.randn(5, 4)
    expected = truncated_svd(a, 2, "svd")

    def fails_in_float32(matrices, **kwargs):
        if matrices.dtype == torch.float32:
            raise torch.linalg.LinAlgError("did not converge")
        return svd(matrices, **kwargs)

    monkeypatch.setattr(torch.linalg, "svd", fails_in_float32)
    u, s, vh = truncated_svd(a, 2, "svd")
    assert {t.dtype for t in (u, s, vh)} == {torch.float32}
    torch.testing.assert_close(u * s @ vh, expected[0] * expected[1] @ expected[2])
    assert "float64" in caplog.text


def test_svd_of_nan_still_fails():
    with pytest.raises(torch.linalg.LinAlgError):
        truncated_svd(torch.full((3, 3), torch.nan, dtype=torch.float64), 1)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
def test_polar_factor_leaves_a_symmetric_positive_factor(shape, route):
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
def test_eigen_route_does_not_square_the_condition_number_in_float32(route):
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
def test_polar_factor_of_a_deficient_matrix_is_the_partial_isometry(shape, route, dtype):
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


def test_unknown_route_names_the_choices():
    with pytest.raises(ValueError, match="polar='qr'.*'eigen', 'svd'"):
        polar_factor(randn(3, 2), "qr")


@pytest.mark.parametrize("shape", [(90, 40, 50), (50, 40, 90), (40, 40, 40), (30, 60, 80)])
@pytest.mark.parametrize("condition", [2.0, 1e4])
def test_polar_product_is_that_of_the_two_polar_factors(shape, condition):
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


EPS = 2**-24  # of float32


def leak(squares, rank, left_out=32):
    """The estimate for these wanted singular values' squares, above ones that go up to 0.1."""
    others = torch.linspace(0, 0.1, left_out)
    return float(estimate_leak(torch.cat([others, torch.tensor(squares)])[None], rank, EPS))


def test_a_leak_is_the_largest_eigenvalue_over_the_gap():
    assert leak([1.0, 1e4, 1e8], 3) == pytest.approx(EPS * 1e8 / 1.0, rel=1e-6)
    assert leak([2.0, 1e4, 1e8], 3) == pytest.approx(EPS * 1e8 / 2.0, rel=1e-6)


def test_a_leak_below_the_error_of_an_svd_is_left():
    crowded = torch.linspace(0.9, 1.1, 52)[None]  # an SVD mixes its neighbours as much
    assert estimate_leak(crowded, 20, EPS) == 0
    # But only up to a bound.
    large = estimate_leak(torch.tensor([[1.0] * 32 + [1 + 2**-20] * 20]), 20, EPS)
    assert float(large) == pytest.approx(EPS * 2**20, rel=1e-3)
    assert float(large) > LARGE_LEAK


def test_equal_or_tiny_eigenvalues_have_no_bound():
    assert estimate_leak(torch.ones(1, 40), 20, EPS).isinf().all()
    tiny = 1e-32 * torch.arange(1.0, 41)[None]
    assert estimate_leak(tiny, 20, EPS).isinf().all()
    both = torch.cat([tiny, tiny * 1e32])
    assert estimate_leak(both, 20, EPS).isinf().tolist() == [True, False]
