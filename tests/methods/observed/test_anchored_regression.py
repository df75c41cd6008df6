"""Theorems of regression towards an anchor, in float64."""

import pytest
import torch
from made_up.statistics import grams_of, made_up_grams, made_up_inputs
from made_up.vectors import SHAPES, close, random_vectors, read

from tsv_bench import methods

LINEAR = ("in_proj_weight", "proj", "c_proj.weight", "text_projection")


def example():
    vectors = random_vectors(3)
    return vectors, made_up_grams(SHAPES, vectors)


def by_definition(deltas, grams, middle, strength):
    a = sum(grams)
    ridge = strength * a.diagonal().mean() * torch.eye(len(a)).double()
    b = sum(delta @ g for delta, g in zip(deltas, grams, strict=True)) + middle @ ridge
    return b @ torch.linalg.inv(a + ridge)


@pytest.mark.parametrize("strength", [0.01, 1, 30])
@pytest.mark.parametrize(("anchor", "alpha"), [("tsv_merge", 1.4), ("task_arithmetic", 0.3)])
def test_it_is_its_formula(strength, anchor, alpha):
    vectors, grams = example()
    knobs = {"anchor": anchor, "anchor_alpha": alpha, "strength": strength}
    merged = methods.anchored_regression(vectors, inputs=grams, **knobs)["task0"]
    middle = getattr(methods, anchor)(vectors)["task0"]
    for name in LINEAR[:3]:
        g = [x[name] / x.gathered(name).count for x in grams.values()]
        deltas = [v[name] for v in vectors.values()]
        expected = by_definition(deltas, g, alpha * middle[name], strength)
        torch.testing.assert_close(merged[name], expected, rtol=1e-9, atol=1e-9)
    for name in ("bias", "conv1.weight", "text_projection"):
        torch.testing.assert_close(merged[name], alpha * middle[name], **close)


@pytest.mark.parametrize("strength", [0.01, 1])
def test_without_data_the_deltas_stand_for_inputs(strength):
    vectors, _ = example()
    merged = methods.anchored_regression(vectors, data_free=True, strength=strength)["task0"]
    middle = methods.tsv_merge(vectors)["task0"]
    for name in ("in_proj_weight", "proj", "c_proj.weight"):
        deltas = [v[name] for v in vectors.values()]
        expected = by_definition(deltas, [d.mT @ d for d in deltas], middle[name], strength)
        torch.testing.assert_close(merged[name], expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(merged["text_projection"], middle["text_projection"])


def test_a_weak_anchor_is_regmean_and_a_strong_one_the_anchor():
    vectors, grams = example()

    def merged(strength):
        return methods.anchored_regression(vectors, inputs=grams, strength=strength)["task0"]

    regmean = methods.regmean(vectors, inputs=grams, off_diagonal=1)["task0"]
    anchor = methods.tsv_merge(vectors)["task0"]
    for name in LINEAR[:3]:
        torch.testing.assert_close(merged(0)[name], regmean[name], **close)
        torch.testing.assert_close(merged(1e12)[name], anchor[name], rtol=1e-9, atol=1e-9)


def test_what_no_input_reaches_is_the_anchors():
    vectors = random_vectors(3)
    inputs = made_up_inputs(SHAPES, vectors)
    for of_task in inputs.values():
        of_task["proj"][:, 4:] = 0
    grams = {task: grams_of(x) for task, x in inputs.items()}
    anchor = methods.tsv_merge(vectors)["task0"]["proj"]
    for strength in (0, 1):
        served = methods.anchored_regression(vectors, inputs=grams, strength=strength)
        merged = served["task0"]["proj"]
        torch.testing.assert_close(merged[:, 4:], anchor[:, 4:], **close)
        assert (merged - anchor)[:, :4].norm() > 0.1


def test_weights_that_are_stored_the_other_way_round_are_merged_the_same():
    vectors = random_vectors(3)
    inputs = made_up_inputs(SHAPES, vectors)
    flipped = {t: {n: d.mT if d.ndim == 2 else d for n, d in v.items()} for t, v in vectors.items()}
    grams, others = ({t: grams_of(x, axis) for t, x in inputs.items()} for axis in (1, 0))
    merged = read(methods.anchored_regression(vectors, inputs=grams))["task0"]
    other = read(methods.anchored_regression(flipped, inputs=others))["task0"]
    for name in LINEAR:
        torch.testing.assert_close(other[name].mT, merged[name], rtol=1e-8, atol=1e-8)


def test_without_statistics_and_not_data_free_it_says_what_to_do():
    with pytest.raises(ValueError, match="needs statistics .* data_free=true"):
        methods.anchored_regression(random_vectors(2))
    assert methods.anchored_regression({}) == {}  # knobs can be checked without


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"anchor": "ties"}, "anchor='ties' is not a method that needs no data"),
        ({"anchor_alpha": -1}, "anchor_alpha=-1 is not a number from 0 on"),
        ({"strength": -0.1}, "strength=-0.1 is not a number from 0 on"),
        ({"exclude": "proj"}, "exclude='proj'"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        methods.anchored_regression({}, **knobs)
