"""Intervals hold a known truth as often as they say, and p-values reject it as rarely.

The bounds are three standard errors of the simulation, sqrt(p (1 - p) / trials), around 95%; a
wider bound has its reason beside it.
"""

import numpy as np
import pytest
from scipy import stats

from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.statistics import sign_flip_p, task_difference, wilson

# Probabilities in three tasks: both right, only the first, only the second, neither.
TRUTH = {"cars": (0.75, 0.10, 0.05, 0.10), "dtd": (0.55, 0.12, 0.08, 0.25),
         "mnist": (0.95, 0.02, 0.02, 0.01)}  # fmt: skip
NUM_IMAGES = {"cars": 200, "dtd": 80, "mnist": 500}
TRUE_DIFFERENCE = np.mean([first - second for _, first, second, _ in TRUTH.values()])


@pytest.fixture
def fewer_resamples(monkeypatch):
    """Draw a thousand resamples: as right, only a little noisier, in a tenth of the time."""
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 1000)


def draw_pair(rng, truth=TRUTH, num_seeds=1):
    """Draw two methods' correctness, task -> [seeds, images]; the seeds of an image are alike."""
    pairs = ({}, {})
    for task, rates in truth.items():
        images = rng.choice(4, p=rates, size=NUM_IMAGES[task])
        seeds = np.where(
            rng.uniform(size=(num_seeds, len(images))) < 0.7,
            images,
            rng.choice(4, p=rates, size=(num_seeds, len(images))),
        )
        pairs[0][task], pairs[1][task] = seeds <= 1, (seeds == 0) | (seeds == 2)
    return pairs


def exact_coverage(interval, accuracy, num_images):
    """Return the probability that the interval of the drawn images holds ``accuracy``."""
    counts = np.arange(num_images + 1)
    found = [interval(count / num_images, num_images) for count in counts]
    holds = [i.low <= accuracy <= i.high for i in found]
    return stats.binom.pmf(counts, num_images, accuracy) @ holds


@pytest.mark.parametrize("num_images", [100, 200, 350, 500])
def test_wilson_covers_accuracies_near_one(num_images):
    """Coverage is computed exactly. Counts are whole, so it swings with the accuracy around 95%."""
    near = [exact_coverage(wilson, p, num_images) for p in np.linspace(0.93, 0.97, 21)]
    assert 0.945 <= np.mean(near) <= 0.96
    assert min(near) >= 0.92

    def naive(accuracy, n):
        half = statistics.Z * np.sqrt(accuracy * (1 - accuracy) / n)
        return statistics.Interval(accuracy - half, accuracy + half)

    assert exact_coverage(naive, 0.95, num_images) < exact_coverage(wilson, 0.95, num_images)


def test_wilson_is_that_of_the_textbook():
    # Newcombe (1998), Statistics in Medicine 17:857, Table I: 81 of 263 and 1 of 29.
    for (count, total), bounds in (((81, 263), (0.2553, 0.3662)), ((1, 29), (0.0061, 0.1718))):
        interval = wilson(count / total, total)
        assert (interval.low, interval.high) == pytest.approx(bounds, abs=5e-5)
    assert wilson(1.0, 100).low < 1 and wilson(1.0, 100).high == pytest.approx(1)


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_interval_of_a_paired_difference_covers_it(num_seeds):
    trials, covered = 300, 0
    rng = np.random.default_rng(0)
    for _ in range(trials):
        interval = statistics.difference(*draw_pair(rng, num_seeds=num_seeds)).images
        covered += interval.low <= TRUE_DIFFERENCE <= interval.high
    # A percentile interval of 80 images covers a little less than it says.
    assert 0.90 <= covered / trials <= 0.985


@pytest.mark.usefixtures("fewer_resamples")
def test_the_interval_of_a_mean_accuracy_covers_it():
    trials, covered = 300, 0
    rng = np.random.default_rng(1)
    true = np.mean([both + first for both, first, _, _ in TRUTH.values()])
    for _ in range(trials):
        interval = statistics.absolute(draw_pair(rng)[0]).images
        covered += interval.low <= true <= interval.high
    assert 0.90 <= covered / trials <= 0.985


@pytest.mark.parametrize("task", TRUTH)
@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_interval_of_one_tasks_difference_covers_it(task, num_seeds):
    """It does so even where few images decide: 10 of 500 each way in mnist."""
    trials, covered = 2000, 0
    rng = np.random.default_rng(2)
    truth = {task: TRUTH[task]}
    for _ in range(trials):
        first, second = draw_pair(rng, truth, num_seeds)
        interval = task_difference(statistics.image_differences(first, second)[task])
        covered += interval.low <= TRUTH[task][1] - TRUTH[task][2] <= interval.high
    assert 0.935 <= covered / trials <= 0.975


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_p_is_uniform_where_no_method_is_better(num_seeds):
    equal = {task: (both, (a + b) / 2, (a + b) / 2, no) for task, (both, a, b, no) in TRUTH.items()}
    rng = np.random.default_rng(3)
    trials = 1000
    found = np.array([
        sign_flip_p(statistics.image_differences(*draw_pair(rng, equal, num_seeds)),
                    seed=trial, num_flips=500)
        for trial in range(trials)
    ])  # fmt: skip
    for level in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9):
        error = 3 * np.sqrt(level * (1 - level) / trials)
        # Sums of few images tie, and ties count against the difference: 1% at most here.
        assert level - error - 0.01 <= np.mean(found <= level) <= level + error


def test_p_of_one_task_is_mcnemars():
    first, second = np.zeros((1, 60), bool), np.zeros((1, 60), bool)
    first[0, :14], second[0, 14:19] = True, True  # 14 images for one, 5 for the other
    exact = stats.binomtest(14, 19).pvalue
    scores = statistics.image_differences({"a": first}, {"a": second})
    error = 3 * np.sqrt(exact * (1 - exact) / statistics.NUM_RESAMPLES)
    assert sign_flip_p(scores) == pytest.approx(exact, abs=error)


def test_p_weighs_tasks_alike_and_flips_seeds_together():
    rng = np.random.default_rng(4)
    first, second = draw_pair(rng)
    alone = sign_flip_p(statistics.image_differences(first, second))
    # The same seed three times is no more evidence than once.
    repeated = [{t: b.repeat(3, axis=0) for t, b in c.items()} for c in (first, second)]
    assert sign_flip_p(statistics.image_differences(*repeated)) == pytest.approx(alone, abs=0.02)
    # A thousand images of another task do not outvote ten that all say the same.
    small = np.ones((1, 10))
    large = np.resize([1, -1], (1, 1000))
    assert sign_flip_p({"small": small}) < 0.01
    assert sign_flip_p({"small": small, "large": large}) < 0.01


def test_p_is_one_where_nothing_differs_and_never_zero():
    same = np.ones((1, 100), bool)
    assert sign_flip_p(statistics.image_differences({"a": same}, {"a": same})) == 1
    clear = statistics.image_differences({"a": same}, {"a": ~same})
    assert sign_flip_p(clear) == pytest.approx(1 / 10_001)
