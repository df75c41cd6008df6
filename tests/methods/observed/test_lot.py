"""Theorems of LOT merging, in float64."""

import pytest
import torch
from made_up.statistics import grams_of, made_up_grams, made_up_inputs
from made_up.vectors import SHAPES, close, random_vectors, read

from tsv_bench import methods

LINEAR = ("in_proj_weight", "proj", "c_proj.weight", "text_projection")


@pytest.mark.parametrize("num_inputs", [1, 3, 60])
def test_it_is_the_pseudo_inverse_of_its_definition(num_inputs):
    vectors = random_vectors(3)
    grams = made_up_grams(SHAPES, vectors, num_inputs)
    merged = methods.lot(vectors, inputs=grams)["task0"]
    for name in LINEAR:
        g = [grams[task][name] for task in vectors]
        b = sum(v[name] @ x for v, x in zip(vectors.values(), g, strict=True))
        expected = b @ torch.linalg.pinv(sum(g), rtol=1e-10, hermitian=True)
        torch.testing.assert_close(merged[name], expected, rtol=1e-8, atol=1e-8)


def test_what_no_input_reaches_stays_as_pretrained():
    vectors = random_vectors(3)
    inputs = made_up_inputs(SHAPES, vectors)
    for of_task in inputs.values():
        of_task["proj"][:, 4:] = 0
    grams = {task: grams_of(x) for task, x in inputs.items()}
    merged = methods.lot(vectors, inputs=grams)["task0"]["proj"]
    assert not merged[:, 4:].any() and merged[:, :4].all()
    mean = methods.weight_average(vectors)["task0"]["proj"]
    other = methods.regmean(vectors, inputs=grams, off_diagonal=1)["task0"]["proj"]
    torch.testing.assert_close(other[:, :4], merged[:, :4], **close)
    torch.testing.assert_close(other[:, 4:], mean[:, 4:], **close)


def test_with_inputs_in_every_direction_it_is_regmean_without_damping():
    vectors = random_vectors(3)
    grams = made_up_grams(SHAPES, vectors)
    found = read(methods.lot(vectors, inputs=grams))
    expected = read(methods.regmean(vectors, inputs=grams, off_diagonal=1))
    torch.testing.assert_close(found, expected, **close)


def test_inputs_count_one_by_one():
    """Unlike RegMean, which gives each task the same weight: the paper sums over features."""
    vectors = random_vectors(2)
    inputs = made_up_inputs(SHAPES, vectors)
    once = {task: grams_of(x) for task, x in inputs.items()}
    doubled = {name: torch.cat([x, x]) for name, x in inputs["task1"].items()}
    merged, other = (
        methods.lot(vectors, inputs=x)["task0"]["proj"]
        for x in (once, once | {"task1": grams_of(doubled)})
    )
    assert (merged - other).norm() > 0.1 * merged.norm()
