"""Intervals where they are known exactly: binomial, t, and pairs that agree.

The 2.5% percentile of 10,000 resamples has a standard error of sqrt(.025 * .975 / 10,000) / density
= 0.027 standard deviations. The difference of two percentiles has 0.038. The tolerance, 3% of an
interval's width (3.92 standard deviations), is three of these.
"""

import numpy as np
import pytest
from made_up.runs import make_correct

from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.statistics import (
    absolute,
    difference,
    normalized,
    over_seeds,
)

MONTE_CARLO = 0.03


def draw(rate, num_images, seed=0, num_seeds=1):
    return np.random.default_rng(seed).uniform(size=(num_seeds, num_images)) < rate


def width(interval):
    return interval.high - interval.low


def test_one_task_has_the_binomial_interval():
    correct = {"cars": draw(0.8, 4000)}
    p = correct["cars"].mean()
    estimate = absolute(correct)
    assert estimate.value == pytest.approx(p)
    assert width(estimate.images) == pytest.approx(
        2 * 1.96 * np.sqrt(p * (1 - p) / 4000), rel=MONTE_CARLO
    )
    middle = (estimate.images.low + estimate.images.high) / 2
    assert middle == pytest.approx(p, abs=MONTE_CARLO * width(estimate.images))


def test_tasks_count_alike_whatever_their_number_of_images():
    correct = {"small": draw(0.9, 100), "large": draw(0.5, 10_000, seed=1)}
    rates = {task: bits.mean() for task, bits in correct.items()}
    variance = sum(rates[t] * (1 - rates[t]) / correct[t].size for t in correct) / 4
    estimate = absolute(correct)
    assert estimate.value == pytest.approx(np.mean(list(rates.values())))
    assert width(estimate.images) == pytest.approx(3.92 * np.sqrt(variance), rel=2 * MONTE_CARLO)


def test_pairs_that_agree_have_a_narrow_difference():
    first, second = make_correct("tsv_merge"), make_correct("task_arithmetic")
    first, second = ({t: b[None] for t, b in c.items()} for c in (first, second))
    paired = difference(first, second)
    unpaired = np.hypot(width(absolute(first).images), width(absolute(second).images))
    assert width(paired.images) < 0.7 * unpaired
    assert paired.value == pytest.approx(absolute(first).value - absolute(second).value)


def test_difference_of_a_method_with_itself_is_zero():
    correct = {"cars": draw(0.6, 50)}
    estimate = difference(correct, correct)
    assert (estimate.value, estimate.images.low, estimate.images.high) == (0, 0, 0)


def test_difference_of_independent_methods_adds_their_variances():
    first, second = {"cars": draw(0.8, 5000)}, {"cars": draw(0.6, 5000, seed=1)}
    estimate = difference(first, second)
    assert width(estimate.images) == pytest.approx(
        3.92 * np.sqrt((0.8 * 0.2 + 0.6 * 0.4) / 5000), rel=2 * MONTE_CARLO
    )


def test_normalized_is_the_mean_of_ratios_not_the_ratio_of_means():
    method = {"a": np.array([[True, False]]), "b": np.array([[True] * 9 + [False]])}
    individual = {"a": np.array([[True, True]]), "b": np.array([[True] * 9 + [False]])}
    assert normalized(method, individual).value == pytest.approx((1 / 2 + 1) / 2)


def test_the_individual_models_normalize_to_one_in_every_resample():
    correct = {"cars": draw(0.9, 500)}
    estimate = normalized(correct, correct)
    assert (estimate.value, estimate.images.low, estimate.images.high) == (1, 1, 1)


def test_few_images_make_no_warning():
    method, individual = {"cars": draw(0.9, 3)}, {"cars": np.array([[True, False, False]])}
    assert np.isfinite(normalized(method, individual).value)


def test_individual_model_that_is_never_right_is_named():
    with pytest.raises(ValueError, match="individual model of 'cars' has none of 5"):
        normalized({"cars": draw(0.9, 5)}, {"cars": np.zeros((1, 5), bool)})


def test_seeds_that_agree_on_images_do_not_narrow_the_interval():
    one = draw(0.7, 2000)
    same = absolute({"cars": np.repeat(one, 3, axis=0)})
    assert width(same.images) == pytest.approx(
        width(absolute({"cars": one}).images), rel=MONTE_CARLO
    )
    assert width(same.seeds) == pytest.approx(0, abs=1e-12)
    # Independent seeds are three times as many images.
    independent = absolute({"cars": draw(0.7, 2000, num_seeds=3)})
    assert width(independent.images) == pytest.approx(
        3.92 * np.sqrt(0.7 * 0.3 / 6000), rel=2 * MONTE_CARLO
    )


def test_interval_over_seeds_is_students():
    # t(2) at 0.975 is 4.30265; the sample standard deviation of 1, 2, 3 is 1.
    interval = over_seeds(np.array([1.0, 2.0, 3.0]))
    assert width(interval) == pytest.approx(2 * 4.30265 / np.sqrt(3), rel=1e-5)
    assert over_seeds(np.array([1.0])) is None


def test_estimate_is_reproducible_and_leaves_global_state_alone():
    correct = {"cars": draw(0.6, 100)}
    state = np.random.get_state()[1].copy()
    assert absolute(correct) == absolute(correct)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_image_counts_that_differ_name_the_task():
    first, second = ({"dtd": draw(0.5, 9), "cars": draw(0.5, n)} for n in (10, 11))
    with pytest.raises(ValueError, match="'cars'"):
        difference(first, second)
    with pytest.raises(ValueError, match="'cars'"):
        difference(first, {"dtd": first["dtd"]})


def test_more_images_need_no_more_random_numbers(monkeypatch):
    """Outcomes are counted and the counts drawn: a table of large test sets takes no time."""
    drawn, default_rng = [], np.random.default_rng

    class Counted:
        def __init__(self, seed):
            self._rng = default_rng(seed)

        def __getattr__(self, name):
            def draw(*args, **settings):
                found = getattr(self._rng, name)(*args, **settings)
                drawn.append(np.size(found))
                return found

            return draw

    def numbers(num_images):
        rows = [
            {task: bits[None] for task, bits in make_correct(method, num_images=num_images).items()}
            for method in ("task_arithmetic", "tsv_merge", "individual")
        ]
        drawn.clear()
        with monkeypatch.context() as patch:
            patch.setattr(np.random, "default_rng", Counted)
            for row in rows:
                absolute(row)
                normalized(row, rows[-1])
                difference(row, rows[0])
        return sum(drawn)

    # A pattern of right and wrong that few images show is not there in the fewer images.
    assert 0 < numbers(4000) < 1.2 * numbers(1000)


def test_resamples_of_few_outcomes_are_those_of_images():
    outcomes = np.stack([draw(0.8, 400), draw(0.5, 400, seed=1)])  # two methods, one seed
    fast = statistics.resampled_means(outcomes, np.random.default_rng(0), num_resamples=2000)
    index = np.random.default_rng(1).integers(400, size=(2000, 400))
    slow = np.moveaxis(outcomes[..., index].mean(axis=-1), -1, 0)
    assert fast.shape == slow.shape == (2000, 2, 1)
    # Means of 2000 draws: three standard errors; covariances: sqrt(2 / 2000) = 3% each.
    covariances = [np.cov(draws[..., 0].T) for draws in (fast, slow)]
    scale = np.sqrt(np.diag(covariances[1]).max())
    np.testing.assert_allclose(fast.mean(axis=0), slow.mean(axis=0), atol=3 * scale / 30)
    np.testing.assert_allclose(*covariances, atol=0.15 * scale**2)


def test_more_outcomes_than_bits_of_an_integer():
    outcomes = draw(0.5, 50, num_seeds=70)
    means = statistics.resampled_means(outcomes, np.random.default_rng(0), num_resamples=2000)
    np.testing.assert_allclose(means.mean(axis=0), outcomes.mean(axis=-1), atol=5e-3)
