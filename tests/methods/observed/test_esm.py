"""Theorems of ESM, in float64, and its definition typed again from inputs instead of x^T x."""

import pytest
import torch
from made_up.statistics import grams_of, made_up_inputs
from made_up.vectors import SHAPES, randn, random_vectors, read
from torch.linalg import qr, svd, svdvals

from tsv_bench import methods

SEEN = ("in_proj_weight", "c_proj.weight", "text_projection", "frozen", "proj")
# Polar factors of square matrices of random directions, whose condition numbers are up to 1e3.
nearly = {"rtol": 1e-6, "atol": 1e-6}


def flat(a):
    u, s, vh = svd(a, full_matrices=False)
    return s.mean() * u @ vh


def by_definition(deltas, inputs, task=2, value=0.15, column=2, factor=2):
    """One layer, step by step as the released code goes, from the inputs themselves."""
    num_tasks, rank = len(deltas), len(deltas[0]) // len(deltas)
    us, vs, sizes = [], [], []
    for delta, x in zip(deltas, inputs, strict=True):
        _, s, vh = svd(x @ delta.mT)
        p, variances = vh[: len(delta)].mT, s**2 / (len(x) - 1)
        sizes.append((p.mT @ delta).norm())
        strengths = (variances[:rank] / variances[:rank].mean()) ** value
        strengths = strengths / strengths.mean()
        us.append(p[:, :rank] * strengths)
        vs.append(strengths[:, None] * (p[:, :rank].mT @ delta))
    mean = sum(sizes) / num_tasks
    v = torch.cat([v * (size / mean) ** task for v, size in zip(vs, sizes, strict=True)])
    lengths = v.norm(dim=0)
    return factor * flat(torch.cat(us, dim=1)) @ flat(v * (lengths / lengths.mean()) ** column)


def example(num_tasks=5, num_inputs=60):
    vectors = random_vectors(num_tasks)
    inputs = made_up_inputs(SHAPES, vectors, num_inputs)
    return vectors, inputs, {task: grams_of(x) for task, x in inputs.items()}


@pytest.mark.parametrize(
    "knobs", [{}, {"task": 1, "value": 0, "column": 0.5}, {"task": 0, "value": 1, "factor": 1}]
)
def test_it_is_its_definition(knobs):
    vectors, inputs, grams = example()
    named = {f"{knob}_exponent" if knob != "factor" else knob: x for knob, x in knobs.items()}
    merged = methods.esm(vectors, inputs=grams, **named)["task0"]
    for name in ("in_proj_weight", "c_proj.weight"):
        deltas, seen = [v[name] for v in vectors.values()], [x[name] for x in inputs.values()]
        torch.testing.assert_close(merged[name], by_definition(deltas, seen, **knobs), **nearly)


def test_matrices_without_statistics_or_by_choice_are_those_of_tsv_merge():
    vectors, _, grams = example()
    tsv = methods.tsv_merge(vectors)["task0"]
    merged = methods.esm(vectors, inputs=grams)["task0"]
    assert torch.equal(merged["proj"], tsv["proj"])  # by its name
    chosen = methods.esm(vectors, inputs=grams, by_triplets=["in_proj*"])["task0"]
    assert torch.equal(chosen["in_proj_weight"], tsv["in_proj_weight"])
    assert not torch.allclose(chosen["proj"], tsv["proj"])
    none = methods.esm(vectors, inputs=dict.fromkeys(vectors, {}))["task0"]
    assert all(torch.equal(none[name], tsv[name]) for name in SHAPES)
    mean = methods.weight_average(vectors)["task0"]
    assert torch.equal(merged["text_projection"], mean["text_projection"])
    left_out = methods.esm(vectors, inputs=grams, exclude=["in_proj_weight"])["task0"]
    assert torch.equal(left_out["in_proj_weight"], mean["in_proj_weight"])
    assert not torch.allclose(left_out["text_projection"], mean["text_projection"])


def test_rotating_outputs_rotates_the_merged_layer():
    vectors, inputs, grams = example()
    turn = qr(randn(30, 30)).Q
    turned = {t: v | {"in_proj_weight": turn @ v["in_proj_weight"]} for t, v in vectors.items()}
    merged, other = (methods.esm(v, inputs=grams)["task0"] for v in (vectors, turned))
    torch.testing.assert_close(other["in_proj_weight"], turn @ merged["in_proj_weight"], **nearly)


def test_rotating_inputs_rotates_the_merged_layer_if_columns_are_not_scaled():
    vectors, inputs, grams = example()
    turn, name = qr(randn(40, 40)).Q, "c_proj.weight"
    turned = {t: v | {name: v[name] @ turn} for t, v in vectors.items()}
    others = {t: grams_of(x | {name: x[name] @ turn}) for t, x in inputs.items()}
    merged = methods.esm(vectors, inputs=grams, column_exponent=0)["task0"][name]
    other = methods.esm(turned, inputs=others, column_exponent=0)["task0"][name]
    torch.testing.assert_close(other, merged @ turn, **nearly)


def test_its_spectrum_is_flat_in_the_directions_of_all_tasks():
    vectors, _, grams = example()
    values = svdvals(methods.esm(vectors, inputs=grams)["task0"]["in_proj_weight"])
    torch.testing.assert_close(values, values.mean().expand(10), **nearly)


@pytest.mark.parametrize("num_tasks", [1, 2])
def test_few_tasks_get_no_directions_of_rounding_errors(num_tasks):
    """Of 30 outputs each of two tasks may have 15, but its delta has only 10 columns."""
    vectors, _, grams = example(num_tasks)
    merged = methods.esm(vectors, inputs=grams)["task0"]["in_proj_weight"]
    deltas = torch.cat([v["in_proj_weight"] for v in vectors.values()], dim=1)
    basis = qr(deltas).Q
    torch.testing.assert_close(basis @ basis.mT @ merged, merged, **nearly)
    noise = 1e-13 * randn(30, 10)
    noisy = {t: v | {"in_proj_weight": v["in_proj_weight"] + noise} for t, v in vectors.items()}
    other = methods.esm(noisy, inputs=grams)["task0"]["in_proj_weight"]
    torch.testing.assert_close(other, merged, **nearly)


def test_a_task_that_changed_nothing_adds_no_directions():
    vectors, inputs, grams = example(3)
    for name in SHAPES:
        vectors["task1"][name] = torch.zeros_like(vectors["task1"][name])
    merged = methods.esm(vectors, inputs=grams)["task0"]["in_proj_weight"]
    both = [vectors[t]["in_proj_weight"] for t in ("task0", "task2")]
    basis = qr(torch.cat(both, dim=1)).Q
    torch.testing.assert_close(basis @ basis.mT @ merged, merged, **nearly)
    assert merged.norm() > 1


def test_a_task_whose_inputs_are_all_zero_has_no_directions():
    vectors, inputs, _ = example(3)
    inputs["task1"] = {name: torch.zeros_like(x) for name, x in inputs["task1"].items()}
    grams = {task: grams_of(x) for task, x in inputs.items()}
    merged = methods.esm(vectors, inputs=grams)["task0"]["in_proj_weight"]
    basis = qr(torch.cat([vectors[t]["in_proj_weight"] for t in ("task0", "task2")], dim=1)).Q
    torch.testing.assert_close(basis @ basis.mT @ merged, merged, **nearly)
    nothing = dict.fromkeys(vectors, grams["task1"])
    assert not methods.esm(vectors, inputs=nothing)["task0"]["in_proj_weight"].any()


def test_float32_deltas_are_merged_as_in_float64_to_rounding():
    vectors, _, grams = example()
    narrow = {task: {n: d.float() for n, d in v.items()} for task, v in vectors.items()}
    wide = {task: {n: d.double() for n, d in v.items()} for task, v in narrow.items()}
    found, expected = (read(methods.esm(v, inputs=grams)) for v in (narrow, wide))
    for name, delta in expected["task0"].items():
        assert found["task0"][name].dtype == torch.float32
        assert (found["task0"][name] - delta).norm() <= 1e-5 * delta.norm(), name


BAD = [
    ({"task_exponent": -1}, "task_exponent=-1 is not a number from 0 on"),
    ({"value_exponent": -0.1}, "value_exponent=-0.1 is not a number from 0 on"),
    ({"column_exponent": True}, "column_exponent=True is not a number from 0 on"),
    ({"layer_exponent": float("nan")}, "layer_exponent=nan is not a number from 0 on"),
    ({"factor": 0}, "factor=0 is not a positive number"),
    ({"rank_fraction": 1.5}, "at least one and at most all"),
    ({"by_triplets": "out_proj"}, "by_triplets='out_proj' is not a list of patterns"),
    ({"exclude": "proj"}, "exclude='proj' is not a list of patterns"),
]


@pytest.mark.parametrize(("knobs", "message"), BAD)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        methods.esm({}, inputs={}, **knobs)


@pytest.mark.usefixtures("without_shape_checks")
def test_a_switch_is_true_or_false():
    with pytest.raises(ValueError, match="as_released=1 is neither true nor false"):
        methods.esm({}, inputs={}, as_released=1)
