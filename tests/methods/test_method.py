"""A method as the commands choose it."""

from functools import partial

import pytest

from tsv_bench import methods
from tsv_bench.methods.method import Choice, Method


def choice(**changes):
    settings = {
        "knob": "mask_lambda",
        "candidates": [0.2, 0.4, 0.6],
        "default": 0.4,
        "serve": methods.tall_mask_ta,
    }
    return Choice(**settings | changes)


def tall(mask_lambda=None, **changes):
    return Method(
        name="tall_mask_ta", label="TALL", alphas=[1.0], knobs={"mask_lambda": mask_lambda},
        serve=partial(methods.tall_mask_ta, mask_lambda=mask_lambda), choice=choice(**changes),
    )  # fmt: skip


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
