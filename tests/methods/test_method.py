"""A method as the commands choose it."""

import pytest
import torch
from made_up.chosen_by_task import tall

from tsv_bench.methods.method import Method


def test_a_knob_that_is_given_is_not_chosen():
    assert tall().knob_is_open and not tall(0.3).knob_is_open
    assert tall(0.3).by_default().serve.keywords == {"mask_lambda": 0.3}
    assert tall().by_default().serve.keywords == {"mask_lambda": 0.4}


def test_for_whom_a_knob_is_chosen_is_part_of_the_settings():
    """Of Runs that were there before there was a choice they stay as they were."""
    assert tall().settings == {
        "name": "tall_mask_ta", "knobs": {"mask_lambda": None}, "alphas": [1.0],
        "candidates": [0.2, 0.4, 0.6],
    }  # fmt: skip
    assert tall(by="suite").settings == tall().settings | {"by": "suite"}
    assert not tall().compares_means and tall(by="suite").compares_means
    assert not tall(0.3, by="suite").compares_means


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": []}, r"choose.candidates=\[\] are no distinct values of mask_lambda"),
        ({"candidates": [0.2, 0.2]}, "no distinct values"),
        ({"candidates": [0.2, -1]}, "mask_lambda=-1 is not a number from 0 on"),
        ({"default": float("nan")}, "mask_lambda=nan is not a number from 0 on"),
        ({"by": "layer"}, "method.choose.by='layer' is not for what .*: \\('task', 'suite'\\)"),
    ],
)
def test_candidates_are_checked_before_any_work(changes, message):
    with pytest.raises(ValueError, match=message):
        tall(**changes).check()


def of_tasks(num_tasks, tried=None):
    """A user's own method for so many tasks; it says what it was tried on."""

    def serve(task_vectors):
        if tried is not None:
            tried.append(len(task_vectors))
        zero = {n: torch.zeros_like(d) for v in task_vectors.values() for n, d in v.items()}
        return dict.fromkeys(task_vectors, zero)

    return Method(
        name="own", label="Own", alphas=[1.0], knobs={}, serve=serve, num_tasks=num_tasks,
        code={"function": "own.serve", "sha256": "0"},
    )  # fmt: skip


@pytest.mark.parametrize("num_tasks", [2, 5])
def test_a_method_may_be_for_a_number_of_tasks(num_tasks):
    tried = []
    method = of_tasks(num_tasks, tried)
    method.check()
    assert tried == [0, num_tasks]
    method.check_tasks([str(task) for task in range(num_tasks)])
    message = f"own is for exactly {num_tasks} tasks, and the tasks here are 1: cars. Name"
    with pytest.raises(ValueError, match=message):
        method.check_tasks(["cars"])
    of_tasks(None).check_tasks(["cars"])


@pytest.mark.parametrize("num_tasks", [0, 1, True, 2.0, "2"])
def test_a_number_of_tasks_is_two_at_least(num_tasks):
    with pytest.raises(ValueError, match="num_tasks=.* is not a whole number from 2 on"):
        of_tasks(num_tasks).check()
