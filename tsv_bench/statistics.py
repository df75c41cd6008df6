"""95% intervals: over test images by the bootstrap, over fine-tuning seeds by Student's t.

Images are resampled within each task; the tasks are those of the suite and stay. Whatever is
compared (a method and the individual models, two methods, several seeds) is resampled on the
same images, so what makes an image easy or hard for both cancels.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: percentile interval.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from tsv_bench.runs import Run

NUM_RESAMPLES = 2000

# task -> bool, seeds x images: which test images were right
Correct = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks and seeds with its 95% intervals, as fractions (not percent).

    ``images`` is None when no per-image correctness is there, ``seeds`` below two seeds.
    """

    value: float
    images: Interval | None = None
    seeds: Interval | None = None


def absolute(correct: Correct, seed: int = 0) -> Estimate:
    """Mean accuracy over tasks."""
    return _estimate([correct], lambda accuracy: accuracy[..., 0, :], seed)


def normalized(correct: Correct, individual: Correct, seed: int = 0) -> Estimate:
    """Mean over tasks of accuracy / accuracy of the individual model, both on the same images.

    ValueError when an individual model has no image right.
    """
    for task, bits in individual.items():
        if not bits.any(axis=-1).all():
            raise ValueError(
                f"normalized accuracy is undefined: the individual model of {task!r} has none "
                f"of {bits.shape[-1]} test images right. Fine-tune it again."
            )
    return _estimate([correct, individual], lambda a: a[..., 0, :] / a[..., 1, :], seed)


def difference(first: Correct, second: Correct, seed: int = 0) -> Estimate:
    """Mean accuracy of ``first`` minus that of ``second``, on the same images."""
    return _estimate([first, second], lambda a: a[..., 0, :] - a[..., 1, :], seed)


def check_same_images(first: Run, second: Run) -> None:
    """ValueError naming the first task whose test images differ between two Runs."""
    for task in first.tasks | second.tasks:
        found = [
            (run.data.get(task), run.test[task].total if task in run.test else 0)
            for run in (first, second)
        ]
        if found[0] != found[1]:
            (data_1, total_1), (data_2, total_2) = found
            raise ValueError(
                f"{first.label} and {second.label} cannot be compared on task {task!r}: "
                f"{total_1} images of data {data_1} against {total_2} of {data_2}. "
                f"Run both on the same data."
            )


def _estimate(
    correct: list[Correct], statistic: Callable[[np.ndarray], np.ndarray], seed: int
) -> Estimate:
    """The mean over tasks and seeds of ``statistic``: (..., methods, seeds) -> (..., seeds)."""
    rng = np.random.default_rng(seed)
    by_seed, resampled = [], []
    for task in correct[0]:
        shapes = [c[task].shape if task in c else None for c in correct]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"cannot pair outcomes of task {task!r}: seeds x images are {shapes[0]} and "
                f"{shapes[1]}. Both must be evaluated on the same images, with the same seeds."
            )
        outcomes = np.stack([c[task] for c in correct])
        by_seed.append(statistic(outcomes.mean(axis=-1)))
        # A resample of few images may have none right: its ratio is then not finite, and the
        # interval need not be either, which is what such a sample can say.
        with np.errstate(divide="ignore", invalid="ignore"):
            resampled.append(statistic(resampled_means(outcomes, rng)).mean(axis=-1))
    values = np.mean(by_seed, axis=0)
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(np.mean(resampled, axis=0), [0.025, 0.975])
    return Estimate(float(values.mean()), Interval(float(low), float(high)), over_seeds(values))


def resampled_means(
    outcomes: np.ndarray, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> np.ndarray:
    """Means over the last axis, its entries drawn with replacement: (resamples, ...).

    Images with the same outcomes everywhere are interchangeable. So the counts are drawn over
    the few distinct outcomes, not over the images: the same distribution, and 40,000 images
    cost no more than 400.
    """
    num_images = outcomes.shape[-1]
    # Outcomes as one integer an image; unique over integers is 50 times faster than over columns.
    rows = outcomes.reshape(-1, num_images)
    assert len(rows) < 63
    codes = (1 << np.arange(len(rows))) @ rows.astype(np.int64)
    distinct, counts = np.unique(codes, return_counts=True)
    drawn = rng.multinomial(num_images, counts / num_images, size=num_resamples)
    patterns = (distinct[:, None] >> np.arange(len(rows))) & 1
    return (drawn @ patterns / num_images).reshape(num_resamples, *outcomes.shape[:-1])


def over_seeds(values: np.ndarray) -> Interval | None:
    """Student's t interval of the mean of one value a seed; None below two seeds."""
    if len(values) < 2:
        return None
    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean() - half), float(values.mean() + half))
