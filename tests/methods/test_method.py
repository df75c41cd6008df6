"""A method as the commands choose it."""

import pytest
from made_up.chosen_by_task import tall


def test_a_knob_that_is_given_is_not_chosen():
    assert tall().chosen_by_task and not tall(0.3).chosen_by_task
    assert tall(0.3).by_default().serve.keywords == {"mask_lambda": 0.3}
    assert tall().by_default().serve.keywords == {"mask_lambda": 0.4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": []}, r"choose.candidates=\[\] are no distinct values of mask_lambda"),
        ({"candidates": [0.2, 0.2]}, "no distinct values"),
        ({"candidates": [0.2, -1]}, "mask_lambda=-1 is not a number from 0 on"),
        ({"default": float("nan")}, "mask_lambda=nan is not a number from 0 on"),
    ],
)
def test_candidates_are_checked_before_any_work(changes, message):
    with pytest.raises(ValueError, match=message):
        tall(**changes).check()
