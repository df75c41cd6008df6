"""Adam that stops where numbers are not finite, and batches that depend on seed and task."""

import pytest
import torch
from made_up.pixel_bench import PixelBench

from tsv_bench import methods
from tsv_bench.methods.bench import check_bench, check_fits
from tsv_bench.methods.learned.learning import Batches, minimize

BENCH = PixelBench({"x": (2, 2)}, "ab", num_images=5)


def quadratic(parameters):
    def gradient():
        for p in parameters:
            p.grad = 2 * p
        return sum(p.square().sum() for p in parameters)

    return gradient


def test_a_minimum_is_found_and_every_parameter_moves():
    parameters = [torch.tensor([3.0, -2.0]), torch.tensor(1.0)]
    minimize(parameters, quadratic(parameters), steps=400, learning_rate=0.1, what="it")
    assert all(p.abs().max() < 1e-2 for p in parameters)


def test_the_first_step_is_the_learning_rate_whatever_the_gradient():
    parameters = [torch.tensor([3e4, -2e-4, 0.0], dtype=torch.float64)]
    before = parameters[0].clone()
    minimize(parameters, quadratic(parameters), steps=1, learning_rate=0.5, what="it")
    moved = torch.tensor([-0.5, 0.5, 0], dtype=torch.float64)
    # eps is 1e-8 of a gradient of 4e-4.
    torch.testing.assert_close(parameters[0] - before, moved, rtol=1e-4, atol=0)


@pytest.mark.parametrize("which", ["loss", "gradient"])
def test_what_is_not_finite_ends_it_and_the_last_state_that_was_is_kept(which, caplog):
    p = torch.tensor([1.0])
    states = []

    def gradient():
        states.append(p.clone())
        p.grad = torch.tensor([torch.inf if which == "gradient" and len(states) == 3 else 1.0])
        return torch.tensor(torch.nan if which == "loss" and len(states) == 3 else 1.0)

    minimize([p], gradient, steps=9, learning_rate=0.1, what="it")
    assert len(states) == 3 and torch.equal(p, states[1])
    assert "it: the loss or its gradient is not finite in step 3: learning stops" in caplog.text


def test_a_last_step_beyond_all_numbers_is_not_kept(caplog):
    p = torch.tensor([-3.4e38])

    def gradient():
        p.grad = torch.ones(1)
        return torch.tensor(1.0)

    minimize([p], gradient, steps=1, learning_rate=1e37, what="it")
    assert (
        p == torch.tensor(-3.4e38) and "it: what is learned is not finite in step 1" in caplog.text
    )


def test_batches_depend_on_seed_and_task_and_have_no_image_twice():
    first = [Batches(BENCH, "a", 3).rows() for _ in range(2)]
    assert torch.equal(*first) and len(set(first[0].tolist())) == 3

    def draw(bench, task):
        batches = Batches(bench, task, 9)
        return [batches.rows().tolist() for _ in range(9)]

    drawn = draw(BENCH, "a")
    assert all(sorted(rows) == [0, 1, 2, 3, 4] for rows in drawn)
    assert len({tuple(rows) for rows in drawn}) > 1
    others = PixelBench({}, "ab", num_images=5, seed=1)
    assert drawn == draw(BENCH, "a") != draw(BENCH, "b") and drawn != draw(others, "a")


def test_a_bench_that_does_not_fit_is_refused():
    check_fits(BENCH, {"a": {"x": torch.ones(2, 2)}})
    with pytest.raises(ValueError, match="has no images of c, but of a, b"):
        check_fits(BENCH, {"c": {"x": torch.ones(2, 2)}})
    with pytest.raises(ValueError, match="1 layers of .* not in the bench's network, first 'y'"):
        check_fits(BENCH, {"a": {"y": torch.ones(2, 2)}})
    with pytest.raises(ValueError, match="mine learns on images of the tasks and got none"):
        check_bench("mine", None)
    with pytest.raises(ValueError, match="ada_merging learns on images"):
        methods.ada_merging({"a": {"x": torch.ones(2, 2)}}, bench=None)
