"""Theorems of MaTS, in float64, and conjugate gradients typed again without eigenvectors."""

import pytest
import torch
from made_up.statistics import made_up_grams
from made_up.vectors import SHAPES, close, random_vectors, read

from tsv_bench import methods

LINEAR = ("in_proj_weight", "proj", "c_proj.weight", "text_projection")


def example(num_inputs=60):
    vectors = random_vectors(3)
    return vectors, made_up_grams(SHAPES, vectors, num_inputs)


def by_definition(vectors, grams, name, steps, start):
    """Row by row, as in a textbook."""
    a = sum(g[name] / g.gathered(name).count for g in grams.values())
    b = sum(vectors[t][name] @ g[name] / g.gathered(name).count for t, g in grams.items())
    rows = []
    for x, right in zip(start, b, strict=True):
        r = right - a @ x
        p = r
        for _ in range(steps):
            alpha = (r @ r) / (p @ a @ p)
            x, after = x + alpha * p, r - alpha * (a @ p)
            p, r = after + (after @ after) / (r @ r) * p, after
        rows.append(x)
    return torch.stack(rows)


@pytest.mark.parametrize("steps", [0, 1, 3, 8])
def test_its_steps_are_those_of_conjugate_gradients(steps):
    vectors, grams = example()
    merged = methods.mats(vectors, inputs=grams, iterations=steps, tolerance=1e-30)["task0"]
    start = methods.task_arithmetic(vectors)["task0"]
    for name in LINEAR[:3]:
        expected = by_definition(vectors, grams, name, steps, 0.3 * start[name])
        torch.testing.assert_close(merged[name], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("start", ["task_arithmetic", "zero_shot", "tsv_merge"])
def test_from_anywhere_it_comes_to_regmean_without_damping(start):
    vectors, grams = example()
    merged = read(methods.mats(vectors, inputs=grams, start=start, tolerance=1e-13))["task0"]
    expected = read(methods.regmean(vectors, inputs=grams, off_diagonal=1))["task0"]
    # At most as many steps as inputs, of which 40 are the most; rounding makes it some more.
    torch.testing.assert_close(merged, expected, rtol=1e-8, atol=1e-8)


def test_what_no_input_reaches_keeps_the_start():
    vectors, grams = example(num_inputs=3)
    merged = methods.mats(vectors, inputs=grams, tolerance=1e-12)["task0"]["c_proj.weight"]
    start = 0.3 * methods.task_arithmetic(vectors)["task0"]["c_proj.weight"]
    g = sum(of_task["c_proj.weight"] for of_task in grams.values())
    null = torch.linalg.eigh(g)[1][:, :-9]
    torch.testing.assert_close(merged @ null, start @ null, **close)
    assert (merged - start).norm() > 0.1


def test_rounding_of_float32_statistics_is_no_direction():
    """It leaves eigenvalues of either sign where there were none; steps along them have no end."""
    vectors, grams = example(num_inputs=3)
    narrow = {t: {name: x.float() for name, x in g.items()} for t, g in grams.items()}
    knobs = {"tolerance": 1e-12, "iterations": 1000}
    merged = methods.mats(vectors, inputs=narrow, **knobs)["task0"]["c_proj.weight"]
    start = 0.3 * methods.task_arithmetic(vectors)["task0"]["c_proj.weight"]
    g = sum(of_task["c_proj.weight"] for of_task in grams.values())
    null = torch.linalg.eigh(g)[1][:, :-9]
    torch.testing.assert_close(merged @ null, start @ null, rtol=1e-4, atol=1e-4)


def test_a_larger_tolerance_stops_earlier_and_nearer_to_the_start():
    vectors, grams = example()
    start = 0.3 * methods.task_arithmetic(vectors)["task0"]["proj"]
    moved = [
        (methods.mats(vectors, inputs=grams, tolerance=tolerance)["task0"]["proj"] - start).norm()
        for tolerance in (1e-8, 0.1, 1e3)
    ]
    assert moved[0] > moved[1] > moved[2] == 0


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"iterations": -1}, "iterations=-1 is not a whole number from 0 on"),
        ({"tolerance": 0}, "tolerance=0 is not a positive number"),
        ({"start": "ties"}, "start='ties' is not a method that needs no data"),
        ({"start_alpha": -1}, "start_alpha=-1 is not a number from 0 on"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        methods.mats({}, inputs={}, **knobs)
