"""Theorems of Model Breadcrumbs. Masks copy entries: what is not a sum is exact."""

import math

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods

BANDS = [(0.15, 0.006), (0.07, 0.01), (0.5, 0.5), (0.2, 0.0), (1.0, 0.0), (1e-9, 0.1)]
SHAPES = {"matrix": (25, 40), "conv": (5, 3, 2, 2), "bias": (29,), "scale": (), "none": (0, 4)}
every_band = pytest.mark.parametrize(("density", "outliers"), BANDS)


def band_pass(delta, density, outliers):
    """What stays of a single task's single layer."""
    vectors = {"a": {"w": delta}}
    return methods.breadcrumbs(vectors, density=density, outlier_fraction=outliers)["a"]["w"]


def reference(delta, density, outliers):
    """By sorting the layer's entries; they are all different."""
    n = delta.numel()
    above = math.floor(n * outliers + 1e-7)
    stay = max(1, math.ceil(n * density - 1e-7))
    order = sorted(range(n), key=lambda i: -abs(delta.flatten()[i]))
    kept = torch.zeros(n, dtype=delta.dtype)
    for i in order[above : above + stay]:
        kept[i] = delta.flatten()[i]
    return kept.reshape(delta.shape)


@every_band
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_stays_of_a_layer_is_the_band_below_the_outliers(shape, density, outliers):
    delta = torch.randn(shape, dtype=torch.float64)
    expected = reference(delta, density, outliers)
    assert torch.equal(band_pass(delta, density, outliers), expected)


@every_band
def test_merged_vector_is_the_sum_over_tasks_of_what_stays_of_each(density, outliers):
    vectors = random_vectors(3)
    served = methods.breadcrumbs(vectors, density=density, outlier_fraction=outliers)["task1"]
    for name in served:
        if name != "frozen":
            expected = sum(
                reference(vector[name], density, outliers) for vector in vectors.values()
            )
            torch.testing.assert_close(served[name], expected, **close)


def test_everything_kept_is_task_arithmetic():
    vectors = random_vectors(4)
    served = methods.breadcrumbs(vectors, density=1.0, outlier_fraction=0)
    torch.testing.assert_close(read(served), read(methods.task_arithmetic(vectors)), **close)


def test_bands_below_each_other_add_up_to_the_task():
    delta = randn(20, 10)
    bands = [band_pass(delta, 0.25, above) for above in (0, 0.25, 0.5, 0.75)]
    torch.testing.assert_close(sum(bands), delta, rtol=0, atol=0)
    assert all(band.count_nonzero() == 50 for band in bands)


def test_shares_that_add_up_to_one_are_taken_whatever_their_digits():
    for density in (0.9, 0.7, 0.3, 0.05):
        assert methods.breadcrumbs({}, density=density, outlier_fraction=1 - density) == {}
    assert methods.breadcrumbs({}, density=0.9, outlier_fraction=0.1) == {}


def test_every_layer_has_its_own_band():
    """One threshold for the whole vector would drop all of the small layer or none."""
    vector = {"small": randn(10, 10) / 1e6, "large": randn(10, 10)}
    served = methods.breadcrumbs({"a": vector}, density=0.3, outlier_fraction=0.1)["a"]
    assert [int(delta.count_nonzero()) for delta in served.values()] == [30, 30]


def test_the_scale_of_a_task_does_not_change_which_entries_stay():
    delta = randn(30, 20)
    expected = -8 * band_pass(delta, 0.15, 0.006)  # a power of two: nothing is rounded
    assert torch.equal(band_pass(-8 * delta, 0.15, 0.006), expected)


def test_entries_as_large_as_one_that_stays_do_so_too():
    delta = torch.tensor([9.0, 2.0, -2.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert band_pass(delta, 0.1, 0.1).tolist() == [0, 2, -2, 2, 0, 0, 0, 0, 0, 0]
    assert band_pass(delta, 0.2, 0.2).tolist() == [0, 2, -2, 2, 0, 0, 0, 0, 0, 0]
    assert band_pass(torch.full((7,), -3.0), 0.2, 0.2).tolist() == [-3] * 7
