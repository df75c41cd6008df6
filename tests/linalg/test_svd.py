"""Theorems of the decompositions, in float64."""

import pytest
import torch

from tsv_bench.linalg import svd
from tsv_bench.linalg.polar import polar_factor
from tsv_bench.linalg.svd import LARGE_LEAK, estimate_leak, truncated_svd

# float64 everywhere: SVD rounding is ~1e-14 here, so 1e-10 separates a wrong algorithm from a
# rounded right one with room on both sides.
close = {"rtol": 1e-10, "atol": 1e-10}
SHAPES = [(24, 24), (40, 24), (24, 40)]
ROUTES = ["svd", "eigen"]


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


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


def test_unknown_route_names_the_choices():
    with pytest.raises(ValueError, match="polar='qr'.*'eigen', 'svd'"):
        polar_factor(randn(3, 2), "qr")


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


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("shape", [(1, 1300, 7), (2, 600, 1), (1, 5, 1100)])
def test_products_in_float64_are_the_same_however_a_matrix_lies(shape, by_columns):
    a = torch.randn(*shape)
    a = a.mT.contiguous().mT if by_columns else a
    basis = torch.randn(shape[0], shape[2], 4, dtype=torch.float64)
    for b in (basis, basis.mT.contiguous().mT):
        torch.testing.assert_close(svd.times_in_float64(a, b), a.double() @ b, rtol=0, atol=1e-12)


def test_eigenvectors_are_torchs_where_a_routine_gives_up(monkeypatch, caplog):
    gram = torch.randn(300, 300, dtype=torch.float64)
    gram = gram @ gram.mT

    def give_up(*_):
        raise ArithmeticError("dstedc gave up")

    values, vectors = svd.eigh(gram)
    torch.testing.assert_close(vectors * values @ vectors.mT, gram)
    monkeypatch.setattr(svd, "LeadingEigenvectors", give_up)
    torch.testing.assert_close(svd.eigh(gram)[0], values)
    assert "by torch: dstedc gave up" in caplog.text
