"""Checks of knobs: each kind, and that every knob of every method has one."""

import inspect
import re
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


@pytest.mark.parametrize("value", ["proj", 1, None, [1], ["proj", None]])
def test_patterns_are_a_list_of_texts(value):
    for patterns in ([], ["proj", "visual.*"], ("a",)):
        knobs.check_patterns("knob", patterns)
    with pytest.raises(ValueError, match="^knob=.* is not a list of patterns of parameter names"):
        knobs.check_patterns("knob", value)


@pytest.mark.parametrize("value", [0, 1, None, "true", [True]])
def test_a_switch_is_true_or_false(value):
    for switch in (True, False):
        knobs.check_switch("knob", switch)
    with pytest.raises(ValueError, match="^knob=.* is neither true nor false"):
        knobs.check_switch("knob", value)


WHOLE = (int, int | None)
NUMBERS = [
    (name, knob, value)
    for name, method in METHODS.items()
    for knob, parameter in inspect.signature(method).parameters.items()
    if any(kind in str(parameter.annotation) for kind in ("float", "int"))
    # The suite's run-time check of types stops floats before a whole knob's own check does.
    for value in (True, False, *(() if parameter.annotation in WHOLE else (nan, inf, -inf)))
]


def test_there_are_knobs_that_are_numbers():
    found = {knob for _, knob, _ in NUMBERS}
    assert {"density", "rank_fraction", "mask_lambda", "seed", "radius"} <= found


def accepted(name, settings, message):
    """What is wrong if a method takes these knobs or refuses them in other words; or nothing."""
    try:
        METHODS[name]({}, **settings)
    except ValueError as error:
        return [] if re.search(message, str(error)) else [f"{name} {settings}: {error}"]
    return [f"{name} takes {settings}"]


def test_no_method_takes_what_is_not_a_number():
    found = [
        accepted(name, {knob: value}, f"^{knob}={value} is not ") for name, knob, value in NUMBERS
    ]
    assert not sum(found, [])


OUT_OF_RANGE = [
    ("ace", {"eps": 0}, "eps=0 is not a positive number"),
    ("ace", {"eps_relative": -1.0}, "eps_relative=-1.0 is not a positive number"),
    ("ace", {"exclude": "proj"}, "exclude='proj'"),
    ("ace", {"spectral_fraction": 1.5}, r"spectral_fraction=1.5 is not in \[0, 1\]"),
    ("ace", {"threshold": -0.1}, "threshold=-0.1 is not a number from 0 on"),
    *(
        ("atm", knobs, message)
        for knobs, message in (
            ({"batch_size": 0}, "batch_size=0 is not a whole number from 1 on"),
            ({"epochs": 2, "steps_per_round": 3}, "epochs=2 and steps_per_round=3 both say how"),
            ({"epochs": 0, "steps_per_round": None}, "epochs=0 is not a whole number from 1 on"),
            ({"merge": "atm"}, "merge=atm: rounds within rounds. Set rounds higher"),
            ({"merge": "average"}, "merge='average' is not a method: ace, "),
            ({"merge": "regmean"}, r"merge=regmean looks at data \(inputs\), which atm has not"),
            ({"merge": "ties", "merge_knobs": {"rank": 3}}, "merge_knobs has 'rank', which merge="),
            ({"merge_knobs": {"density": 1}}, "has no effect: merge=mean has no knobs"),
            ({"rate": 0}, "rate=0 is not a positive number"),
            ({"round_alpha": 0}, "round_alpha=0 is not a positive number"),
            ({"rounds": 0}, "rounds=0 is not a whole number from 1 on: it is how often"),
            ({"schedule": "linear"}, "schedule='linear'.*'constant', 'recipe'"),
            ({"shift": -1}, "shift=-1 is not a whole number from 0 on"),
            ({"start": "atm"}, "start=atm: rounds within rounds"),
            ({"start": "fisher"}, r"start=fisher looks at data \(fisher\)"),
            ({"start": "ties", "start_knobs": {"a": 1}}, "start_knobs has 'a', which start=ties"),
            ({"start_alpha": -1}, "start_alpha=-1 is not a number from 0 on"),
            ({"steps_per_round": 0}, "steps_per_round=0 is not a whole number from 1 on"),
            ({"weight_decay": -0.1}, "weight_decay=-0.1 is not a number from 0 on"),
        )
    ),
    ("breadcrumbs", {"density": 0}, r"density=0 is not in \(0, 1\]"),
    ("breadcrumbs", {"density": 1.5}, r"density=1.5 is not in \(0, 1\]"),
    ("breadcrumbs", {"outlier_fraction": -0.1}, r"outlier_fraction=-0.1 is not in \[0, 0.85\]"),
    (
        "breadcrumbs",
        {"density": 0.5, "outlier_fraction": 0.6},
        r"outlier_fraction=0.6 is not in \[0, 0.5\]",
    ),
    ("cart", {"centered_scale": -1.0}, "centered_scale=-1.0 is not a number from 0 on"),
    ("cart", {"rank_fraction": 0.0}, "at least one and at most all"),
    ("cart", {"rank_fraction": 1.5}, "at least one and at most all"),
    ("cart", {"svd": "qr"}, "svd='qr'"),
    *(
        (consensus, knobs, message)
        for consensus in ("consensus_ta", "consensus_ties")
        for knobs, message in (
            ({"mask_lambda": -0.1}, "mask_lambda=-0.1 is not a number from 0 on"),
            ({"min_tasks": 0}, "min_tasks=0 is not a whole number from 1 on"),
        )
    ),
    ("consensus_ties", {"density": 20}, r"density=20 is not in \(0, 1\]"),
    ("core_space", {"density": 0}, r"density=0 is not in \(0, 1\]"),
    ("core_space", {"rule": "mean"}, "rule='mean'.*'tsv', 'sum', 'ties'"),
    ("dare_ta", {"density": 0}, r"density=0 is not in \(0, 1\]"),
    ("dare_ties", {"density": 1.5}, r"density=1.5 is not in \(0, 1\]"),
    ("dare_ties", {"merge": "max"}, "merge='max'"),
    ("dare_ties", {"trim_density": 2}, r"trim_density=2 is not in \(0, 1\]"),
    ("dc_merge", {"density": 0}, r"density=0 is not in \(0, 1\]"),
    ("dc_merge", {"density": 1.5}, r"density=1.5 is not in \(0, 1\]"),
    ("dc_merge", {"svd": "qr"}, "svd='qr'"),
    ("fr_merging", {"centre": "middle"}, "centre='middle'.*'highest', 'zero'"),
    ("fr_merging", {"exclude": "proj"}, "exclude='proj'"),
    ("fr_merging", {"radius": -1}, "radius=-1 is not a number from 0 on"),
    ("fr_merging", {"weights": "equal"}, "weights='equal'.*'aligned', 'share'"),
    ("knots", {"density": 0}, r"density=0 is not in \(0, 1\]"),
    ("knots", {"rule": "mean"}, "rule='mean'.*'ties', 'sum'"),
    ("knots", {"trim": "task"}, "trim='task'.*'vector', 'layer'"),
    ("lata", {"drop": "cubic"}, "drop='cubic'.*'linear', 'logarithmic'"),
    ("lata_published", {"drop": "cubic"}, "drop='cubic'.*'linear', 'logarithmic'"),
    ("lata_published", {"granularity": "layer"}, "granularity='layer'.*'block', 'tensor'"),
    ("lata_published", {"rank_weights": "one"}, "rank_weights='one'.*'from_zero', 'above_zero'"),
    ("lata_published", {"threshold": -2}, r"threshold=-2 is not in \[-1, 1\]"),
    ("lata_threshold", {"threshold": 1.5}, r"threshold=1.5 is not in \[-1, 1\]"),
    *(
        ("localize_and_stitch", knobs, message)
        for knobs, message in (
            ({"batch_size": 0}, "batch_size=0 is not a whole number from 1 on"),
            ({"confidence": 0}, "confidence=0 is not a positive number"),
            ({"density": 0}, r"density=0 is not in \(0, 1\]"),
            ({"epochs": -1}, "epochs=-1 is not a whole number from 0 on"),
            ({"learning_rate": 0}, "learning_rate=0 is not a positive number"),
            ({"penalty": -1}, "penalty=-1 is not a number from 0 on"),
        )
    ),
    ("regmean_plus_plus", {"off_diagonal": 2}, r"off_diagonal=2 is not in \[0, 1\]"),
    ("regmean_plus_plus", {"post_norm": "own"}, "post_norm='own'.*'pretrained', 'mean'"),
    ("slerp", {"t": 1.5}, r"t=1.5 is not in \[0, 1\]"),
    ("ties", {"density": 0}, r"density=0 is not in \(0, 1\]"),
    ("ties", {"density": 20}, r"density=20 is not in \(0, 1\]"),
    ("ties", {"scope": "layer"}, "scope='layer'.*'vector', 'tensor'"),
    ("ties", {"merge": "max"}, "merge='max'.*'mean', 'sum'"),
    ("tsv_compress", {"rank_fraction": 1.5}, "at least one and at most all"),
    ("tsv_interference_only", {"exclude": "proj"}, "exclude='proj'"),
    ("tsv_interference_only", {"polar": "qr"}, "polar='qr'.*'eigen', 'svd'"),
    ("tsv_low_rank", {"rank_fraction": 1.5}, "at least one and at most all"),
    ("tsv_low_rank", {"svd": "qr"}, "svd='qr'"),
    ("tsv_merge", {"polar": "qr"}, "polar='qr'.*'eigen', 'svd'"),
    ("tsv_merge", {"rank_fraction": 0.0}, "at least one and at most all"),
    ("wudi", {"exclude": "proj"}, "exclude='proj'"),
    ("wudi", {"iterations": -1}, "iterations=-1 is not a whole number"),
    ("wudi", {"learning_rate": 0.0}, "learning_rate=0.0 is not a positive number"),
    ("wudi", {"relative_learning_rate": -1.0}, "relative_learning_rate=-1.0 is not a positive"),
    ("wudi", {"solver": "sgd"}, "solver='sgd'.*'adam', 'closed_form'"),
]


def test_knobs_out_of_range_are_refused_before_anything_is_read():
    assert not sum((accepted(*case) for case in OUT_OF_RANGE), [])
