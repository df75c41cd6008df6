"""Layers that leave little to decompose, in float32: finite, repeatable and right."""

import logging

import pytest
import torch
from made_up import spectra
from made_up.spectra import exact_merge

from tsv_bench.linalg import polar, svd
from tsv_bench.methods import ranks
from tsv_bench.methods.matrixwise.tsv import merge_matrix

ROUTES = {"gram": {"svd": "gram", "polar": "eigen"}, "svd": {"svd": "svd", "polar": "svd"}}
every_route = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
SHAPES = [(150, 140), (135, 200)]  # the quick route tries float32 here, but not for one task


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two would wait for each other on a busy machine, for longer than these sizes take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def half(monkeypatch):
    """Matrices are large from half the sides on that are large to users: an eighth of the time."""
    monkeypatch.setattr(svd, "SMALL", svd.SMALL // 2)
    monkeypatch.setattr(polar, "FEW", polar.FEW // 2)


def merged(deltas, rank_fraction=None, **route):
    """The merged layer; the same bits again, and finite."""
    before = deltas.clone()
    found, again = (merge_matrix(deltas, rank_fraction, **route) for _ in range(2))
    assert torch.equal(found, again) and torch.equal(deltas, before)
    assert found.shape == deltas.shape[1:] and found.dtype == torch.float32
    assert found.isfinite().all()
    return found


def assert_near(found, expected, tolerance=1e-4):
    """In the relative Frobenius norm; float32 leaves 1e-5 where nothing magnifies it."""
    error = (found.double() - expected).norm() / expected.norm()
    assert error <= tolerance, f"{error:.1e}"


def best(matrix, rank):
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u[:, :rank] * s[:rank] @ vh[:rank]


@every_route
@pytest.mark.parametrize("shape", SHAPES)
def test_identical_tasks_merge_to_what_each_of_them_keeps(shape, route):
    delta = spectra.power(1, *shape)[0]
    assert_near(merged(delta.expand(4, *shape), 0.1, **route), best(delta, min(shape) // 10))


@every_route
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scales", [(1, 2, -0.25, 8), (1, 3, -0.3, 7.7)])
def test_collinear_tasks_merge_to_their_mean(shape, scales, route):
    # Where the tasks keep all there is, none keeps a direction that the others leave out.
    delta = spectra.lora(1, *shape, size=0)[0]
    scales = torch.tensor(scales)
    found = merged(scales[:, None, None] * delta, 0.15, **route)
    assert_near(found, float(scales.mean()) * delta.double())


@every_route
@pytest.mark.parametrize("shape", SHAPES)
def test_collinear_tasks_that_keep_a_part_are_finite_and_repeatable(shape, route):
    delta = spectra.noise(1, *shape)
    merged(torch.cat([delta, 3 * delta, -0.3 * delta]), **route)


@every_route
@pytest.mark.parametrize("shape", SHAPES)
def test_tasks_that_lack_rank_bring_in_only_what_they_have(shape, route):
    deltas = spectra.layers(5, *shape, torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64))
    found = merged(deltas, **route)
    assert_near(found, exact_merge(deltas, 3))
    assert torch.linalg.matrix_rank(found, rtol=1e-5) == 15


@pytest.mark.parametrize("shape", SHAPES)
def test_what_lacks_rank_is_found_without_eigenvectors_too(shape, monkeypatch):
    """The tridiagonal form of larger matrices, here of all: tasks alike, of few ranks, or idle."""
    monkeypatch.setattr(polar, "FEW", 0)
    delta = spectra.lora(1, *shape, size=0)[0]
    assert_near(merged(delta.expand(4, *shape), 0.15), delta.double())
    nearly = delta + 1e-5 * delta.std() * torch.randn(4, *shape)
    merged(nearly, 0.15)
    deltas = spectra.layers(5, *shape, torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64))
    deltas[3] = 0
    found = merged(deltas)
    assert_near(found, exact_merge(deltas[[0, 1, 2, 4]], 3))
    assert torch.linalg.matrix_rank(found, rtol=1e-5) == 12


@every_route
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank_fraction", [0.1, 1.0])
def test_all_zero_is_zero(shape, rank_fraction, route):
    assert not merged(torch.zeros(3, *shape), rank_fraction, **route).any()


@every_route
@pytest.mark.parametrize("shape", SHAPES)
def test_task_that_changed_nothing_has_no_influence(shape, route):
    deltas = spectra.power(4, *shape)
    deltas[1] = 0
    found = merged(deltas, 0.1, **route)
    assert_near(found, merged(deltas[[0, 2, 3]], 0.1, **route).double(), 1e-6)


@every_route
@pytest.mark.parametrize("shape", [(300, 8), (8, 300), (5, 8)])
def test_more_tasks_than_a_side_keep_one_each_and_say_so(shape, route, caplog):
    ranks._warn_that_one_is_kept.cache_clear()
    deltas = torch.randn(12, *shape)
    with caplog.at_level(logging.WARNING):
        found = merged(deltas, **route)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"1/12 of {min(shape)} singular vectors is less than one" in caplog.text
    assert_near(found, exact_merge(deltas, 1))


@every_route
@pytest.mark.parametrize("shape", [*SHAPES, (300, 1), (1, 300), (1, 1), (12, 7)])
def test_one_task_that_keeps_all_is_returned_as_it_is(shape, route):
    delta = torch.randn(1, *shape)
    assert_near(merged(delta, **route), delta[0].double(), 1e-5)
    assert_near(merged(delta, 1.0, **route), delta[0].double(), 1e-5)


@every_route
@pytest.mark.parametrize("shape", SHAPES)
def test_one_task_is_returned_truncated(shape, route):
    delta = spectra.power(1, *shape)
    assert_near(merged(delta, 0.1, **route), best(delta[0], min(shape) // 10), 1e-5)


@every_route
@pytest.mark.parametrize("num_tasks", [1, 2, 5])
@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 4), (1, 1)])
def test_a_single_row_or_column(shape, num_tasks, route):
    deltas = torch.randn(num_tasks, *shape)
    assert_near(merged(deltas, **route), exact_merge(deltas, 1))


@every_route
@pytest.mark.parametrize("exponent", [-100, -73, -66, 50, 100])  # 2^-66 is 1e-20
def test_scale_does_not_matter(exponent, route):
    deltas = spectra.power(3, 150, 140)
    found = merged(deltas * 2.0**exponent, 0.1, **route)
    assert_near(found.double() * 2.0**-exponent, exact_merge(deltas, 14))


@every_route
def test_scales_of_tasks_do_not_matter_to_each_other(route):
    deltas = spectra.power(4, 150, 140) * 2.0 ** torch.tensor([-66, 0, 50, 3])[:, None, None]
    assert_near(merged(deltas, 0.1, **route), exact_merge(deltas, 14))


def fail(monkeypatch, name, *dtypes):
    whole = getattr(torch.linalg, name)

    def failing(matrices, **kwargs):
        if matrices.dtype in dtypes:
            raise torch.linalg.LinAlgError(f"{name} did not converge")
        return whole(matrices, **kwargs)

    monkeypatch.setattr(torch.linalg, name, failing)
    if name == "eigh":  # whose float32 matrices go to LAPACK first

        def give_up(gram, count):
            raise ArithmeticError("LAPACK's sstedc gave up, info 7.")

        monkeypatch.setattr(svd, "LeadingEigenvectors", give_up)


@pytest.mark.parametrize("dtypes", [(torch.float32,), (torch.float32, torch.float64)])
def test_eigenvectors_that_do_not_converge_are_found_by_svd(dtypes, monkeypatch, caplog):
    deltas = spectra.power(3, 150, 140)
    expected = exact_merge(deltas, 14)
    fail(monkeypatch, "eigh", *dtypes)
    assert_near(merged(deltas, 0.1), expected)
    assert "by SVD in float64: eigh did not converge" in caplog.text
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_everything_that_float32_cannot_do_is_done_in_float64(monkeypatch, caplog):
    deltas = spectra.power(3, 150, 140)
    expected = exact_merge(deltas, 14)
    fail(monkeypatch, "eigh", torch.float32)
    fail(monkeypatch, "svd", torch.float32)
    for route in ROUTES.values():
        caplog.clear()
        assert_near(merged(deltas, 0.1, **route), expected)
        assert "float64" in caplog.text
