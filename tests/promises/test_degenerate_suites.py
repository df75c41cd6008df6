"""Suites at the limits of what methods are made for: finite vectors, and a word where they fail."""

import pytest
import torch
from made_up.every_method import FINE_TUNING, METHODS, NUM_TASKS, suited
from made_up.vectors import close, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods import ranks
from tsv_bench.methods.masked import consensus
from tsv_bench.methods.matrixwise import iso


@pytest.fixture(autouse=True)
def one_thread():
    """Of matrices as small as these a second thread makes nothing but work for itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


pytestmark = pytest.mark.usefixtures("without_shape_checks", "short_fits")


def copied(vectors):
    return {task: {n: d.clone() for n, d in vector.items()} for task, vector in vectors.items()}


def degenerate(case, method):
    """Task vectors of a degenerate kind; as many as the method is for, if that is one number."""
    vectors = random_vectors(suited(method, {"T > r": 13, "T = 1": 1}.get(case, 3)))
    if case in ("T > r", "T = 1"):
        return vectors
    first = vectors["task0"]
    for t, vector in enumerate(vectors.values()):
        for name, delta in vector.items():
            if case == "all zero" or (case == "one zero task" and t == 1):
                vector[name] = torch.zeros_like(delta)
            elif case == "identical":
                vector[name] = first[name].clone()
            elif case == "collinear":
                vector[name] = (t - 1.5) * first[name]
            elif case == "rank one" and delta.ndim == 2:
                vector[name] = delta[:, :1] @ delta[:1]
    return vectors


# Of these suites the outcome is asked for twice; of any others by test_every_method.
AGAIN = ["identical", "rank one", "all zero", "one zero task"]
CASES = [*AGAIN, "collinear", "T > r", "T = 1"]
# Of one task, or of many, these have something to say. The others do what they do with any number
# of tasks; what that is with one, test_methods says.
SAYING = ("lata", "consensus", "iso_cts", "tsv_merge", "tsv_low_rank", "tsv_compress", "dc_merge",
          "core_space", "anchored_regression", "esm", "atm", "merge3", *NUM_TASKS)  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_suites_give_finite_repeatable_vectors(name, dtype, caplog):
    """And those of one task or of many are no reason for a word that is not so."""
    for case in CASES:
        caplog.clear()
        torch.default_generator.manual_seed(0)  # of the CPU alone, and a hundred times as quick
        try:
            finite_and_repeatable(name, case, dtype)
            if case in ("T > r", "T = 1") and not name.startswith(SAYING):
                assert not caplog.messages
        except Exception as error:
            error.add_note(f"{name} of the suite that is {case!r}, {dtype}")
            raise


def finite_and_repeatable(name, case, dtype):
    method = METHODS[name]
    vectors = degenerate(case, method)
    for vector in vectors.values():
        vector.update({name: delta.to(dtype) for name, delta in vector.items()})
    served = read(method(vectors))
    if dtype == torch.float32 and case in AGAIN:
        torch.testing.assert_close(read(method(copied(vectors))), served, rtol=0, atol=0)
    for vector in served.values():
        for layer, delta in vector.items():
            assert delta.isfinite().all(), layer
            assert delta.dtype == dtype
            if case == "all zero" and name not in FINE_TUNING:
                assert not delta.any(), layer


def warnings(caplog, method, num_tasks, **knobs):
    """What is logged while a suite is merged, whatever was said before."""
    for remembered in (
        ranks._warn_that_one_is_kept,
        iso._warn_that_no_task_has_its_own,
        consensus._warn_that_nothing_is_left,
    ):
        remembered.cache_clear()
    caplog.clear()
    served = read(getattr(methods, method)(random_vectors(num_tasks), **knobs))
    return served["task0"], " ".join(caplog.messages)


def test_less_than_one_triplet_for_a_task_is_a_warning(caplog):
    for method in ("tsv_merge", "tsv_low_rank", "tsv_compress", "dc_merge"):
        _, said = warnings(caplog, method, 15)
        assert "share of 1/15 of 10 singular vectors is less than one; each of 15" in said, method
        assert not warnings(caplog, method, 3)[1]
    assert not warnings(caplog, "tsv_interference_only", 15)[1]  # keeps all
    assert not warnings(caplog, "cart", 15)[1]  # its rank is no share of the tasks
    assert "share of 0.01 of 10" in warnings(caplog, "cart", 3, rank_fraction=0.01)[1]


def test_iso_cts_without_room_for_the_tasks_says_that_it_is_iso_c(caplog):
    merged, said = warnings(caplog, "iso_cts", 15)
    assert "common_fraction=0.8 leaves less than one of 10 directions for each of 15 tasks" in said
    torch.manual_seed(0)
    expected = read(methods.iso_c(random_vectors(15)))["task0"]
    torch.testing.assert_close(merged, expected, **close)
    assert not warnings(caplog, "iso_cts", 2)[1]
    assert not warnings(caplog, "iso_cts", 15, common_fraction=1)[1]  # asked for


def test_consensus_of_fewer_tasks_than_must_agree_is_a_warning(caplog):
    merged, said = warnings(caplog, "consensus_ta", 1, mask_lambda=0.4, min_tasks=2)
    assert "min_tasks=2 is more than there are tasks (1): nothing is left" in said
    assert not any(delta.any() for delta in merged.values())
    assert not warnings(caplog, "consensus_ta", 2, mask_lambda=0.4, min_tasks=2)[1]


def test_lata_of_one_task_says_that_it_tells_no_layers_apart(caplog):
    _, said = warnings(caplog, "lata", 1, drop="linear", threshold=0.95)
    assert "every layer has the same weight, 0.5: all are equally like the mean" in said
    merged, said = warnings(caplog, "lata", 1, drop="threshold", threshold=0.95)
    assert "drops every layer" in said and "threshold=0.95. The pretrained model is served" in said
    assert not any(delta.any() for delta in merged.values())
    assert not warnings(caplog, "lata", 3, drop="linear", threshold=0.95)[1]
