"""Eigenvectors by LAPACK's steps, against torch's in float64."""

import threading
import time

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from tsv_bench.linalg import lapack, svd
from tsv_bench.linalg.lapack import LeadingEigenvectors, one_thread


def gram(n, seed=0, rows=None):
    a = torch.randn(rows or n + 7, n, generator=torch.Generator().manual_seed(seed))
    return a.T @ a


# As many as come from divide and conquer, and as few as come from inverse iteration.
@pytest.mark.parametrize("n", [1, 2, 3, 63, 64, 65, 130, 300])
@pytest.mark.parametrize("share", [1, 2, lapack.FEW, 4 * lapack.FEW])
def test_eigenvalues_and_eigenvectors_are_those_of_the_matrix(n, share):
    matrix, count = gram(n), max(1, n // share)
    found = LeadingEigenvectors(matrix, count)
    values, vectors = torch.linalg.eigh(matrix.double())
    # LAPACK's bound: some units in the last place of the largest eigenvalue.
    rounding = 4 * torch.finfo(torch.float32).eps * values[-1].item()
    torch.testing.assert_close(found.values.double(), values[n - count :], rtol=0, atol=rounding)
    smaller, rest = found.others(count)
    torch.testing.assert_close(smaller.double(), values[: n - count], rtol=0, atol=rounding)
    for own, expected in (
        (found.leading(count).double(), values[n - count :]),
        (rest.double(), values[: n - count]),
    ):
        eye = torch.eye(own.shape[1]).double()
        torch.testing.assert_close(own.T @ own, eye, rtol=0, atol=1e-5)
        residual = matrix.double() @ own - own * expected
        assert not residual.numel() or residual.norm(dim=0).max() < rounding


@pytest.mark.parametrize("count", [90, 10])
def test_fewer_eigenvectors_are_the_last_of_more(count):
    found = LeadingEigenvectors(gram(90), count)
    everything = found.leading(count)
    for fewer in (count, count // 2, 1, 0):
        few = found.leading(fewer)
        torch.testing.assert_close(few, everything[:, count - fewer :], rtol=0, atol=1e-5)


def test_only_the_lower_triangle_is_read_and_nothing_is_written():
    matrix = gram(70)
    torn = matrix.tril() + torch.full((70, 70), torch.nan).triu(1)
    before = torn.clone()
    for count in (70, 8):
        found, whole = LeadingEigenvectors(torn, count), LeadingEigenvectors(matrix, count)
        torch.testing.assert_close(torn, before, equal_nan=True, rtol=0, atol=0)
        torch.testing.assert_close(found.values, whole.values, rtol=0, atol=0)
        torch.testing.assert_close(found.leading(count), whole.leading(count), rtol=0, atol=0)


@pytest.mark.parametrize("count", [20, 2])
def test_degenerate_matrices(count):
    assert (LeadingEigenvectors(torch.zeros(20, 20), count).values == 0).all()
    same = LeadingEigenvectors(torch.eye(20), count)
    assert (same.values == 1).all()
    own = same.leading(count)
    torch.testing.assert_close(own.T @ own, torch.eye(count))
    # Falls into blocks, the values of which bisection does not give in order.
    blocks = torch.block_diag(gram(10), 2 * gram(10, seed=1))
    found = LeadingEigenvectors(blocks, count)
    expected = torch.linalg.eigvalsh(blocks)[20 - count :]
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("count", [50, 6])
def test_a_matrix_of_low_rank(count):
    low = LeadingEigenvectors(gram(50, rows=3), count)
    assert low.values[-3] > 1 and low.values[:-3].abs().max() < 1e-3
    own = low.leading(count).double()
    torch.testing.assert_close(own.T @ own, torch.eye(count).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", [1, 2, lapack.FEW, 4 * lapack.FEW])
def test_float64_is_as_exact_as_float64_can_be(share):
    matrix = gram(130).double()
    count = 130 // share
    found, (values, _) = LeadingEigenvectors(matrix, count), torch.linalg.eigh(matrix)
    own, rounding = found.leading(count), 4 * torch.finfo(torch.float64).eps * values[-1].item()
    torch.testing.assert_close(found.values, values[130 - count :], rtol=0, atol=rounding)
    assert (matrix @ own - own * found.values).norm(dim=0).max() < 10 * rounding
    torch.testing.assert_close(own.T @ own, torch.eye(count).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(svd.leading_eigh(matrix, count)[1], own.flip(1), rtol=0, atol=0)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(TypeError, match="float16"):
        LeadingEigenvectors(torch.eye(3).half(), 1)


def test_a_routine_that_gives_up_is_named(monkeypatch):
    def give_up(name, num_arguments):
        def routine(*arguments):
            arguments[-1]._obj.value = 7

        return routine

    monkeypatch.setattr(lapack, "_routine", give_up)
    with pytest.raises(ArithmeticError, match="ssytrd gave up, info 7"):
        LeadingEigenvectors(torch.eye(3), 1)


def test_torch_takes_over_where_a_routine_gives_up(monkeypatch, caplog):
    def give_up(matrix, count):
        raise ArithmeticError("LAPACK's sstedc gave up, info 7.")

    a = torch.randn(400, 300, generator=torch.Generator().manual_seed(1))
    s = svd.truncated_svd(a, 5)[1]
    monkeypatch.setattr(svd, "LeadingEigenvectors", give_up)
    torch.testing.assert_close(svd.truncated_svd(a, 5)[1], s, rtol=1e-6, atol=0)
    assert "sstedc gave up" in caplog.text and "by torch" in caplog.text


def test_torch_takes_over_where_the_others_cannot_be_had(monkeypatch, caplog):
    """Only a leak that must be corrected asks for them."""

    def give_up(self, count):
        raise ArithmeticError("LAPACK's sstedc gave up, info 7.")

    a = torch.randn(400, 300, generator=torch.Generator().manual_seed(1))
    s = torch.linalg.svdvals(a.double())[:5]
    monkeypatch.setattr(svd, "LEAK", 0.0)
    monkeypatch.setattr(svd, "LARGE_LEAK", 0.0)
    monkeypatch.setattr(LeadingEigenvectors, "others", give_up)
    torch.testing.assert_close(svd.truncated_svd(a, 5)[1].double(), s, rtol=1e-6, atol=0)
    assert "sstedc gave up" in caplog.text and "by torch" in caplog.text


def test_other_threads_run_meanwhile():
    """The interpreter's lock is let go of: a pure Python loop goes on during one long call."""
    # Other processes may keep the loop waiting during one call, not during each of twenty.
    assert any(longest_pause(gram(1500)) < 0.5 for _ in range(20))


def longest_pause(matrix):
    """The longest time in which a loop in another thread stands still, as a share of the call."""
    stop, ticks = threading.Event(), []

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    with one_thread():
        start = time.perf_counter()
        LeadingEigenvectors(matrix, len(matrix))
        end = time.perf_counter()
    stop.set()
    ticker.join()
    during = [start, *(t for t in ticks if start < t < end), end]
    return max(b - a for a, b in zip(during, during[1:], strict=False)) / (end - start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lies", ["by rows", "by columns", "within another"])
@pytest.mark.parametrize(("m", "n"), [(7, 4), (3, 8), (1, 1), (0, 3)])
def test_squares_are_the_product_s_lower_triangle(m, n, lies, dtype):
    a = torch.randn(m, 2 * n, dtype=dtype)[:, :n]
    a = {"by rows": a.contiguous(), "by columns": a.mT.contiguous().mT, "within another": a}[lies]
    before = a.clone()
    found = lapack.lower_squares(a)
    tolerance = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, (a.mT @ a).tril(), rtol=0, atol=tolerance)
    assert torch.equal(a, before)


@pytest.mark.parametrize("values", [[3.0], [2.0, -1.0, 5.0, 0.5]])
def test_lowest_and_highest_are_those_of_all(values):
    matrix = torch.diag(torch.tensor(values).double())
    if len(values) > 1:
        matrix[0, 1] = matrix[1, 0] = 0.7  # and apart from here on
    found = lapack.lowest_and_highest(
        matrix.diagonal().contiguous(), matrix.diagonal(1).contiguous()
    )
    expected = torch.linalg.eigvalsh(matrix)[[0, -1]].tolist()
    assert found == pytest.approx(expected, rel=1e-12)


def test_lapack_has_one_thread_within_and_as_many_as_before_after_it():
    def threads():
        return {
            x["filepath"]: x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"
        }

    with one_thread():  # SciPy's library is loaded
        pass
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with one_thread():
            assert before and set(threads().values()) == {1}
        assert threads() == before
