"""Theorems of FR-Merging and its filters."""

import math

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.matrixwise.fr_merging import kept_frequencies, magnitude_shares, passed
from tsv_bench.task_vectors.lazy import lazy_vectors

SIDES = [(8, 8), (12, 7), (7, 12), (9, 9)]
sides = pytest.mark.parametrize(("m", "n"), SIDES)
everything = {"centre": "zero", "radius": 0}


def high_pass(matrices, centre, radius):
    kept = kept_frequencies(*matrices.shape[-2:], centre, radius)
    if matrices.ndim == 2:
        return passed(matrices, kept)
    return torch.stack([passed(matrix, kept) for matrix in matrices])


def wave(m, n, p, q):
    """A real wave of p periods down the rows and q along the columns."""
    phase = p * torch.arange(m)[:, None] / m + q * torch.arange(n) / n
    return torch.cos(2 * math.pi * phase.double())


def reference(matrix, keeps):
    """By the full complex spectrum, frequency by frequency; ``keeps`` takes two signed ones."""
    m, n = matrix.shape
    spectrum = torch.fft.fft2(matrix)
    for i in range(m):
        for j in range(n):
            signed = (i if 2 * i <= m else i - m), (j if 2 * j <= n else j - n)
            if not keeps(*signed):
                spectrum[i, j] = 0
    filtered = torch.fft.ifft2(spectrum)
    assert filtered.imag.abs().max() < 1e-12  # both of a pair of mirror images, or none
    return filtered.real


@sides
@pytest.mark.parametrize("radius", [0, 0.1, 0.3, 0.5])
def test_the_filter_from_zero_is_its_definition(m, n, radius):
    matrix, far = randn(m, n), radius * min(m, n)
    expected = reference(matrix, lambda p, q: math.sqrt(p * p + q * q) >= far)
    torch.testing.assert_close(high_pass(matrix, "zero", radius), expected, **close)


@sides
@pytest.mark.parametrize("radius", [0.1, 0.45, 0.7])
def test_the_filter_from_the_highest_is_its_definition(m, n, radius):
    matrix, far = randn(m, n), radius * min(m, n)

    def near_the_highest(p, q):
        return math.sqrt((m / 2 - abs(p)) ** 2 + (n / 2 - abs(q)) ** 2) <= far

    expected = reference(matrix, near_the_highest)
    torch.testing.assert_close(high_pass(matrix, "highest", radius), expected, **close)


@sides
def test_without_a_radius_the_round_trip_is_the_matrix(m, n):
    matrix = randn(m, n)
    torch.testing.assert_close(high_pass(matrix, "zero", 0), matrix, **close)


@sides
@pytest.mark.parametrize(("centre", "radius"), [("zero", 0.3), ("highest", 0.5)])
def test_filtering_again_or_the_transpose_changes_nothing(m, n, centre, radius):
    once = high_pass(randn(m, n), centre, radius)
    torch.testing.assert_close(high_pass(once, centre, radius), once, **close)
    torch.testing.assert_close(high_pass(once.mT, centre, radius), once.mT, **close)


def test_slow_waves_are_stopped_and_fast_ones_pass():
    slow, fast = wave(16, 16, 1, 2), wave(16, 16, 5, -6)
    for centre, radius in (("zero", 0.3), ("highest", 0.5)):
        torch.testing.assert_close(high_pass(slow + fast, centre, radius), fast, **close)


def test_of_a_square_matrix_the_codes_radius_stops_little_beyond_the_mean():
    kept = kept_frequencies(768, 768, "highest", 0.7)
    stopped = (~kept).nonzero()
    assert not kept[0, 0] and 0 < len(stopped) < 100
    # For a wide one it is much more: the circle is as wide as the smaller side.
    assert kept_frequencies(3072, 768, "highest", 0.7).double().mean() < 0.4


@pytest.mark.parametrize("centre", ["zero", "highest"])
def test_fr_merging_filters_each_layer_and_aligns_its_magnitudes(centre):
    knobs = {"centre": centre, "radius": 0.4}
    vectors = random_vectors(3)
    served = methods.fr_merging(vectors, **knobs, weights="aligned")["task0"]
    for name in ("proj", "c_proj.weight", "in_proj_weight"):
        filtered = [high_pass(vector[name], **knobs) for vector in vectors.values()]
        largest = max(matrix.abs().mean() for matrix in filtered)
        expected = sum(matrix * largest / matrix.abs().mean() for matrix in filtered)
        torch.testing.assert_close(served[name], expected, **close)
    for name in ("bias", "conv1.weight", "text_projection"):
        average = torch.stack([vector[name] for vector in vectors.values()]).mean(0)
        torch.testing.assert_close(served[name], average, **close)


def test_shares_are_of_the_mean_magnitudes_of_whole_task_vectors():
    vectors = random_vectors(3)
    flat = [torch.cat([d.flatten() for d in v.values()]).abs().mean() for v in vectors.values()]
    shares = [float(mean / sum(flat)) for mean in flat]
    assert magnitude_shares(lazy_vectors(vectors.values())) == pytest.approx(shares, rel=1e-12)
    served = methods.fr_merging(vectors, **everything, weights="share")["task0"]
    expected = sum(s * v["proj"] for s, v in zip(shares, vectors.values(), strict=True))
    torch.testing.assert_close(served["proj"], expected, **close)


def test_aligning_makes_the_scale_of_smaller_tasks_immaterial():
    vectors = random_vectors(2)
    smaller = {n: delta / 1000 for n, delta in vectors["task1"].items()}
    larger = {n: 5 * delta for n, delta in vectors["task0"].items()}
    served = [
        methods.fr_merging({"a": larger, "b": other}, **everything, weights="aligned")["a"]["proj"]
        for other in (vectors["task1"], smaller)
    ]
    torch.testing.assert_close(*served, **close)


def test_all_frequencies_and_no_weights_is_task_arithmetic_of_matrices():
    vectors = random_vectors(4)
    served = methods.fr_merging(vectors, **everything, weights="one")["task0"]
    total = methods.task_arithmetic(vectors)["task0"]
    for name in ("proj", "in_proj_weight", "c_proj.weight"):
        torch.testing.assert_close(served[name], total[name], **close)


@pytest.mark.parametrize("weights", ["aligned", "share", "one"])
def test_one_task_with_all_frequencies_is_served_unchanged(weights):
    vectors = random_vectors(1)
    served = methods.fr_merging(vectors, **everything, weights=weights)
    torch.testing.assert_close(read(served), vectors, **close)
