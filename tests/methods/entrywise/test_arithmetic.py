"""Theorems of the sum and the mean, in float64."""

import torch
from made_up.vectors import close, random_vectors, read

from tsv_bench import methods
from tsv_bench.task_vectors.task_vector import apply


def test_zero_shot_is_the_pretrained_model():
    vectors = random_vectors(2)
    pretrained = random_vectors(1)["task0"]
    for vector in methods.zero_shot(vectors).values():
        torch.testing.assert_close(apply(pretrained, vector, 1.0), pretrained, rtol=0, atol=0)


def test_individual_is_the_task_vector():
    vectors = random_vectors(2)
    torch.testing.assert_close(read(methods.individual(vectors)), vectors, rtol=0, atol=0)


def test_weight_average_is_the_mean_of_the_models():
    vectors, pretrained = random_vectors(3), random_vectors(1)["task0"]
    models = [apply(pretrained, vector, 1.0) for vector in vectors.values()]
    averaged = apply(pretrained, methods.weight_average(vectors)["task1"], 1.0)
    for name, weight in averaged.items():
        torch.testing.assert_close(weight, torch.stack([m[name] for m in models]).mean(0), **close)


def test_task_arithmetic_is_linear():
    vectors, more = random_vectors(3), random_vectors(3)
    combined = {t: {n: 2 * d + more[t][n] for n, d in v.items()} for t, v in vectors.items()}
    a, b, c = (methods.task_arithmetic(v)["task0"] for v in (vectors, more, combined))
    for name in a:
        torch.testing.assert_close(c[name], 2 * a[name] + b[name], **close)


def test_task_arithmetic_with_alpha_one_over_tasks_is_the_weight_average():
    vectors, pretrained = random_vectors(3), random_vectors(1)["task0"]
    total, mean = methods.task_arithmetic(vectors), methods.weight_average(vectors)
    torch.testing.assert_close(
        apply(pretrained, total["task0"], 1 / 3), apply(pretrained, mean["task0"], 1.0), **close
    )
