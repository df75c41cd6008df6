"""Block bidiagonal forms and the polar factors by them, against singular vectors in float64."""

import pytest
import torch
from made_up.vectors import close, randn

from tsv_bench.linalg import block_bidiagonal as module
from tsv_bench.linalg.block_bidiagonal import (
    Band,
    BandInverses,
    BlockBidiagonal,
    LargePolar,
    reflections,
)
from tsv_bench.linalg.polar import polar_factor

# Of blocks of 4: whole ones and parts, a single one, and less than one.
SHAPES = [(24, 24), (40, 24), (23, 22), (30, 9), (9, 4), (5, 5), (7, 3), (3, 1), (1, 1)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "COLUMNS", 5)


def whole(form):
    """b with its zeros."""
    starts = range(0, form.width, module.BLOCK)
    b = torch.zeros(form.width, form.width, dtype=torch.float64)
    for start, block in zip(starts, form.diagonal, strict=True):
        b[start : start + len(block), start : start + len(block)] = block
    for start, block in zip(starts, form.beside, strict=False):
        right = start + module.BLOCK
        b[start : start + len(block), right : right + block.shape[1]] = block
    return b


@pytest.mark.parametrize("shape", SHAPES)
def test_the_form_is_a_rotation_of_the_matrix_on_both_sides(shape):
    a = randn(*shape)
    form, eye = BlockBidiagonal(a.clone()), torch.eye(shape[1], dtype=torch.float64)
    p, q, b = form.from_right(eye), form.from_left(eye), whole(form)
    torch.testing.assert_close(q @ b @ p.mT, a, **close)
    for rotation in (p, q):
        torch.testing.assert_close(rotation.mT @ rotation, eye, **close)
    x, y = randn(shape[1], 6), randn(shape[0], 6)
    for found, expected in (
        (form.to_right(x), p.mT @ x),
        (form.from_right(x), p @ x),
        (form.to_left(y), q.mT @ y),
        (form.from_left(x), q @ x),
        (form.times(x), b @ x),
        (form.transposed_times(x), b.mT @ x),
    ):
        torch.testing.assert_close(found, expected, **close)


def test_a_column_that_needs_no_reflection_gets_none():
    panel = torch.diag(torch.tensor([2.0, 0.0, 3.0])).double()
    found, triangle = reflections(panel.clone(), 0)
    eye = torch.eye(3, dtype=torch.float64)
    rotation = eye - found.v @ found.t @ found.v.mT
    torch.testing.assert_close(rotation @ rotation.mT, eye, **close)
    torch.testing.assert_close(rotation @ triangle, panel, **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_polar_factor_is_that_by_singular_vectors(shape):
    a = randn(*shape)
    found, expected = LargePolar(a.clone()), polar_factor(a, "svd")
    near = {"rtol": 0, "atol": 1e-7}  # twice the error left to the root
    torch.testing.assert_close(found.whole(), expected, **near)
    x, y = randn(shape[1], 7), randn(shape[0], 7)
    torch.testing.assert_close(found.times(x), expected @ x, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.transposed_times(y), expected.mT @ y, rtol=0, atol=1e-6)
    assert found.nuclear_norm == pytest.approx(float(torch.linalg.svdvals(a).sum()), rel=1e-7)


def with_condition(m, n, condition):
    """A matrix whose singular values fall evenly by this factor, and its polar factor."""
    u, _, vh = torch.linalg.svd(randn(m, n), full_matrices=False)
    values = torch.linspace(1, 1 / condition, n, dtype=torch.float64)
    return u * values @ vh, u @ vh, float(values.sum())


@pytest.mark.parametrize(("shape", "condition"), [((150, 150), 1e3), ((200, 150), 1e2)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_in_float32_it_is_exact_to_a_few_units(shape, condition, scale, monkeypatch):
    """The condition number of the squares, up to 1e6, would cost all of float32's digits."""
    monkeypatch.setattr(module, "BLOCK", 16)
    a, expected, nuclear = with_condition(*shape, condition)
    found = LargePolar((scale * a).float())
    assert (found.whole() - expected).norm() < 5e-6 * expected.norm()
    assert found.nuclear_norm == pytest.approx(scale * nuclear, rel=2e-6)


@pytest.mark.parametrize(("shape", "condition"), [((150, 150), 1e5), ((200, 150), 1e4)])
def test_what_float32_has_too_few_digits_for_is_left_to_float64(shape, condition, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 16)
    a, expected, _ = with_condition(*shape, condition)
    with pytest.raises(ArithmeticError, match="rounding by .* is too large"):
        LargePolar(a.float())
    assert (LargePolar(a).whole() - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("shape", [(120, 120), (160, 120)])
@pytest.mark.parametrize("smallest", [1.0, 0.1, 0.01])
def test_the_bound_on_rounding_is_one(shape, smallest, monkeypatch):
    """With as many small singular values as large ones, which is the worst."""
    monkeypatch.setattr(module, "BLOCK", 16)
    monkeypatch.setattr(module, "LARGEST_ROUNDING", 0)
    u, _, vh = torch.linalg.svd(randn(*shape), full_matrices=False)
    values = torch.ones(120, dtype=torch.float64)
    values[60:] = smallest
    a = (u * values @ vh).float()
    with pytest.raises(ArithmeticError) as refused:
        LargePolar(a.clone())
    bound = float(str(refused.value).split()[2])
    monkeypatch.setattr(module, "LARGEST_ROUNDING", 1)
    apart = float((LargePolar(a).whole() - u @ vh).norm() / (u @ vh).norm())
    assert bound / 10 < apart < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_lacks_rank_is_refused(dtype):
    for a in (
        torch.zeros(12, 8),
        randn(20, 3) @ randn(3, 12),
        torch.full((9, 6), torch.nan),
        randn(12, 12)[:, [*range(11), 3]],
        torch.diag(torch.tensor([1.0, 1.0, 1e-6, 1.0, 1.0, 1.0])),
    ):
        with pytest.raises(
            ArithmeticError, match="number of .* is too large|rounding|not positive definite"
        ):
            LargePolar(a.to(dtype))


@pytest.mark.parametrize("n", [1, 3, 4, 5, 17])
def test_inverses_of_a_band_are_those_of_the_matrix(n):
    form = BlockBidiagonal(randn(n + 3, n))
    band, matrix = Band.of_squares(form), whole(form).mT @ whole(form)
    shifts, weights = [0.0, 0.3, 50.0], torch.tensor([1.0, -2.0, 0.5]).double()
    eye = torch.eye(n, dtype=torch.float64)
    inverses = [torch.linalg.inv(matrix + shift * eye) for shift in shifts]
    found, x = BandInverses(band, shifts), randn(n, 11)
    traces = torch.stack([inverse.trace() for inverse in inverses])
    torch.testing.assert_close(found.traces, traces, rtol=1e-9, atol=0)
    expected = sum(w * inverse @ x for w, inverse in zip(weights, inverses, strict=True))
    torch.testing.assert_close(found.times(x, weights), expected, rtol=1e-9, atol=1e-9)
    highest = float(torch.linalg.eigvalsh(matrix)[-1])
    assert highest <= band.bound() * (1 + 1e-12) and band.bound() <= 3 * highest
