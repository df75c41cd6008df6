"""Eigenvectors by LAPACK's steps, against torch's in float64."""

import threading
import time

import pytest
import torch

from tsv_bench import lapack, linalg
from tsv_bench.lapack import LeadingEigenvectors, one_thread


def gram(n, seed=0, rows=None):
    a = torch.randn(rows or n + 7, n, generator=torch.Generator().manual_seed(seed))
    return a.T @ a


@pytest.mark.parametrize("n", [1, 2, 3, 63, 64, 65, 130, 300])
def test_eigenvalues_and_eigenvectors_are_those_of_the_matrix(n):
    matrix = gram(n)
    found = LeadingEigenvectors(matrix)
    values, vectors = torch.linalg.eigh(matrix.double())
    # LAPACK's bound: some units in the last place of the largest eigenvalue.
    rounding = 4 * torch.finfo(torch.float32).eps * values[-1].item()
    torch.testing.assert_close(found.values.double(), values, rtol=0, atol=rounding)
    own = found.vectors(0, n).double()
    torch.testing.assert_close(own.T @ own, torch.eye(n).double(), rtol=0, atol=1e-5)
    residual = matrix.double() @ own - own * values
    assert residual.norm(dim=0).max() < rounding


def test_a_span_of_eigenvectors_is_the_same_span_of_all():
    found = LeadingEigenvectors(gram(90))
    everything = found.vectors(0, 90)
    for start, stop in ((0, 90), (60, 90), (0, 60), (10, 11), (90, 90)):
        torch.testing.assert_close(found.vectors(start, stop), everything[:, start:stop])


def test_only_the_lower_triangle_is_read_and_nothing_is_written():
    matrix = gram(70)
    torn = matrix.tril() + torch.full((70, 70), torch.nan).triu(1)
    before = torn.clone()
    found = LeadingEigenvectors(torn)
    torch.testing.assert_close(torn, before, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(found.values, LeadingEigenvectors(matrix).values, rtol=0, atol=0)


def test_degenerate_matrices():
    assert (LeadingEigenvectors(torch.zeros(20, 20)).values == 0).all()
    same = LeadingEigenvectors(torch.eye(20))
    assert (same.values == 1).all()
    torch.testing.assert_close(same.vectors(0, 20).abs(), torch.eye(20), rtol=0, atol=0)
    low = LeadingEigenvectors(gram(50, rows=3))
    assert low.values[47] > 1 and low.values[:47].abs().max() < 1e-3


def test_what_it_cannot_do_is_refused():
    with pytest.raises(TypeError, match="float64"):
        LeadingEigenvectors(torch.eye(3).double())


def test_a_routine_that_gives_up_is_named(monkeypatch):
    def give_up(name, num_arguments):
        def routine(*arguments):
            arguments[-1]._obj.value = 7

        return routine

    monkeypatch.setattr(lapack, "_routine", give_up)
    with pytest.raises(ArithmeticError, match="ssytrd gave up, info 7"):
        LeadingEigenvectors(torch.eye(3))


def test_torch_takes_over_where_a_routine_gives_up(monkeypatch, caplog):
    def give_up(matrix):
        raise ArithmeticError("LAPACK's sstedc gave up, info 7.")

    a = torch.randn(400, 300, generator=torch.Generator().manual_seed(1))
    s = linalg.truncated_svd(a, 5)[1]
    monkeypatch.setattr(linalg, "LeadingEigenvectors", give_up)
    torch.testing.assert_close(linalg.truncated_svd(a, 5)[1], s, rtol=1e-6, atol=0)
    assert "sstedc gave up" in caplog.text and "by torch" in caplog.text


def test_other_threads_run_meanwhile():
    """The interpreter's lock is let go of: a pure Python loop goes on during one long call."""
    matrix, stop, ticks = gram(1500), threading.Event(), []

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    with one_thread():
        start = time.perf_counter()
        LeadingEigenvectors(matrix)
        end = time.perf_counter()
    stop.set()
    ticker.join()
    during = [start, *(t for t in ticks if start < t < end), end]
    longest = max(b - a for a, b in zip(during, during[1:], strict=False))
    assert longest < 0.5 * (end - start)
