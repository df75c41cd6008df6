"""Checks of knobs: each kind, and that every knob of every method has one."""

import inspect
from math import inf, nan

import pytest
from made_up.every_method import METHODS

from tsv_bench.methods import knobs

KINDS = {
    "share": (knobs.check_share, (), [1e-9, 0.5, 1, 1.0], [0, -0.1, 1.1, 20]),
    "range": (knobs.check_range, (-1, 0.3), [-1, 0, 1 - 0.7], [-1.1, 0.31]),
    "positive": (knobs.check_positive, (), [1e-9, 1, 30.0], [0, 0.0, -1]),
    "not negative": (knobs.check_not_negative, (), [0, 0.0, 1, 30.0], [-1e-9, -1]),
    "whole": (knobs.check_whole, (), [-3, 0, 3], [0.5, 1.0]),
}


def refused(check, value, *arguments, **options):
    with pytest.raises(ValueError, match="^") as error:
        check("knob", value, *arguments, "the meaning", **options)
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_a_kind_pass_and_others_are_refused(kind):
    check, arguments, good, bad = KINDS[kind]
    for value in good:
        check("knob", value, *arguments, "the meaning")
    for value in (*bad, True, False, nan, inf, -inf, "0.5", None, [0.5]):
        message = refused(check, value, *arguments)
        assert message.startswith(f"knob={value!r} is not ")
        assert message.endswith(": it is the meaning.")


def test_a_whole_number_may_have_a_lowest():
    knobs.check_whole("knob", 2, "the meaning", 2)
    assert "is not a whole number from 2 on:" in refused(knobs.check_whole, 1, lowest=2)
    assert "is not a whole number from 2 on:" in refused(knobs.check_whole, True, lowest=2)


def test_a_number_may_be_one_tasks():
    message = refused(knobs.check_not_negative, -1, whose=" of cars")
    assert message == "knob=-1 of cars is not a number from 0 on: it is the meaning."


@pytest.mark.parametrize("value", ["median", "", True, nan, 1, None, ["mean"]])
def test_choices_are_named(value):
    choices = ("mean", "sum")
    for choice in choices:
        knobs.check_choice("merge", choice, choices, "a way to merge")
    with pytest.raises(ValueError, match="is not a way to merge") as error:
        knobs.check_choice("merge", value, choices, "a way to merge")
    assert str(error.value) == f"merge={value!r} is not a way to merge: ('mean', 'sum')."


NUMBERS = [
    (name, knob, value)
    for name, method in METHODS.items()
    for knob, parameter in inspect.signature(method).parameters.items()
    if any(kind in str(parameter.annotation) for kind in ("float", "int"))
    # The suite's run-time check of types stops floats before a whole knob's own check does.
    for value in ((True, False) if parameter.annotation is int else (True, False, nan, inf, -inf))
]


def test_there_are_knobs_that_are_numbers():
    found = {knob for _, knob, _ in NUMBERS}
    assert {"density", "rank_fraction", "mask_lambda", "seed", "radius"} <= found


@pytest.mark.parametrize(("name", "knob", "value"), NUMBERS)
def test_no_method_takes_what_is_not_a_number(name, knob, value):
    with pytest.raises(ValueError, match=f"^{knob}={value} is not "):
        METHODS[name]({}, **{knob: value})
