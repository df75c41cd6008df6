"""95% intervals and p-values: over test images, and over fine-tuning seeds.

Images are resampled within each task; the suite's tasks are fixed. Whatever is compared (a
method and the individual models, two methods, several seeds) is resampled on the same images, so
that an image that is easy or hard for both does not widen the interval.

- A mean over tasks: percentile bootstrap over images; Student's t over seeds.
- One task's accuracy: Wilson (1927), which holds near 0 and 1 and for few images, where a
  bootstrap is too narrow. One task's paired difference: Bonett and Price (2012), for the same
  reason.
- p-values: sign flips. If two methods are equally good, chance decides which is right on an image.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 15.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

NUM_RESAMPLES = 10_000
Z = float(ndtri(0.975))

# task -> [seeds, images], bool: which test images were right
Correct = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A 95% interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks and seeds with its 95% intervals, as fractions (not percent).

    ``images`` is None without per-image correctness, ``seeds`` is None below two seeds.
    """

    value: float
    images: Interval | None = None
    seeds: Interval | None = None


def absolute(correct: Correct, seed: int = 0) -> Estimate:
    """Estimate the mean accuracy over tasks."""
    return _mean_score(correct, seed)


def over_conditions(correct: Sequence[Correct], seed: int = 0) -> Estimate:
    """Estimate the mean accuracy over tasks and over conditions that all have the same images.

    An image is drawn with its outcomes under all conditions.
    """
    total = {
        task: np.sum([of_condition[task] for of_condition in correct], axis=0, dtype=np.int64)
        for task in correct[0]
    }
    found, num = _mean_score(total, seed), len(correct)

    def shared(interval: Interval | None) -> Interval | None:
        return interval and Interval(interval.low / num, interval.high / num)

    return Estimate(found.value / num, shared(found.images), shared(found.seeds))


def difference(first: Correct, second: Correct, seed: int = 0) -> Estimate:
    """Estimate the mean accuracy of ``first`` minus that of ``second``, on the same images."""
    return _mean_score(image_differences(first, second), seed)


def normalized(correct: Correct, individual: Correct, seed: int = 0) -> Estimate:
    """Estimate the mean over tasks of accuracy / individual accuracy, on the same images.

    Raises ValueError if an individual model has no image right.
    """
    _check_never_zero(individual)
    return _estimate([correct, individual], lambda a: a[..., 0, :] / a[..., 1, :], seed)


def normalized_difference(
    first: Correct, second: Correct, individual: Correct, seed: int = 0
) -> Estimate:
    """Estimate the normalized accuracy of ``first`` minus that of ``second``, on the same images.

    Raises ValueError if an individual model has no image right.
    """
    _check_never_zero(individual)
    return _estimate(
        [first, second, individual],
        lambda a: (a[..., 0, :] - a[..., 1, :]) / a[..., 2, :],
        seed,
    )


def image_differences(first: Correct, second: Correct) -> dict[str, np.ndarray]:
    """Return task -> [seeds, images]: 1 where only ``first`` is right, -1 where only ``second``.

    Raises ValueError if the two do not have the same tasks, seeds and numbers of images.
    """
    _check_paired([first, second])
    return {task: first[task].astype(np.int8) - second[task] for task in first}


def wilson(accuracy: float, num_images: int) -> Interval:
    """Return Wilson's interval of one task's accuracy.

    The mean over several seeds is treated as one seed. This holds even if all seeds have the same
    images right; otherwise it is too wide.
    """
    shrunk = 1 / (1 + Z**2 / num_images)
    middle = shrunk * (accuracy + Z**2 / (2 * num_images))
    spread = accuracy * (1 - accuracy) / num_images + (Z / (2 * num_images)) ** 2
    half = shrunk * Z * np.sqrt(spread)
    return Interval(float(middle - half), float(middle + half))


def task_difference(differences: np.ndarray) -> Interval:
    """Return Bonett and Price's interval of one task's paired difference.

    ``differences`` is [seeds, images], from `image_differences`. Two images are added, one that
    each method alone has right.
    """
    mean = differences.mean(axis=0)  # over seeds: images are the independent units
    num = mean.size + 2
    middle = mean.sum() / num
    variance = ((mean**2).sum() + 2) / num - middle**2
    half = Z * np.sqrt(variance / num)
    return Interval(float(middle - half), float(middle + half))


def sign_flip_p(
    scores: Mapping[str, np.ndarray], seed: int = 0, num_flips: int = NUM_RESAMPLES
) -> float:
    """Return the two-sided p-value of the hypothesis that the mean over tasks is zero.

    ``scores`` (task -> [seeds, images]) are differences of two methods. Images have their signs
    flipped at random, all seeds of an image together, ``num_flips`` times in each task. With one
    task and one seed this is McNemar's exact test. The p-value is at least 1 / (num_flips + 1).
    """
    rng = np.random.default_rng(seed)
    observed, flipped = 0.0, np.zeros(num_flips)
    for of_task in scores.values():
        of_image = np.asarray(of_task, float).sum(axis=0)
        observed += of_image.mean()
        # Images of one magnitude are interchangeable, so it is enough to draw how many of them
        # become positive. Rounded, because equal sums may differ in their last digits.
        magnitudes, counts = np.unique(np.abs(of_image).round(12), return_counts=True)
        positive = rng.binomial(counts, 0.5, size=(num_flips, len(counts)))
        flipped += (2 * positive - counts) @ magnitudes / of_image.size
    # The tolerance makes sums equal that differ by rounding alone.
    return float((1 + np.sum(np.abs(flipped) >= abs(observed) - 1e-9)) / (num_flips + 1))


def _check_never_zero(individual: Correct) -> None:
    for task, bits in individual.items():
        if not bits.any(axis=-1).all():
            raise ValueError(
                f"normalized accuracy is undefined: the individual model of {task!r} has none "
                f"of {bits.shape[-1]} test images right. Fine-tune it again."
            )


def _check_paired(correct: list[Correct]) -> None:
    for task in correct[0]:
        shapes = [c[task].shape if task in c else None for c in correct]
        for shape in shapes:
            if shape != shapes[0]:
                raise ValueError(
                    f"cannot pair outcomes of task {task!r}: seeds x images are {shapes[0]} and "
                    f"{shape}. Both must be evaluated on the same images, with the same seeds."
                )


def _mean_score(scores: Mapping[str, np.ndarray], seed: int) -> Estimate:
    """Estimate the mean over tasks, seeds and images of integers: task -> [seeds, images]."""
    rng = np.random.default_rng(seed)
    by_seed, resampled = [], []
    for of_task in scores.values():
        num_seeds, num_images = of_task.shape
        by_seed.append(of_task.mean(axis=-1))
        distinct, counts = np.unique(of_task.sum(axis=0, dtype=np.int64), return_counts=True)
        drawn = rng.multinomial(num_images, counts / num_images, size=NUM_RESAMPLES)
        resampled.append(drawn @ distinct / (num_seeds * num_images))
    return _summary(np.mean(by_seed, axis=0), np.mean(resampled, axis=0))


def _estimate(
    correct: list[Correct], statistic: Callable[[np.ndarray], np.ndarray], seed: int
) -> Estimate:
    """Estimate the mean over tasks and seeds of a statistic of the methods' accuracies.

    ``statistic`` takes [..., methods, seeds] and returns [..., seeds].
    """
    _check_paired(correct)
    rng = np.random.default_rng(seed)
    by_seed, resampled = [], []
    for task in correct[0]:
        outcomes = np.stack([c[task] for c in correct])
        by_seed.append(statistic(outcomes.mean(axis=-1)))
        # In a resample of few images the individual model may have none right. The ratio, and
        # perhaps the interval, is then infinite: so few images bound it no better.
        with np.errstate(divide="ignore", invalid="ignore"):
            means = resampled_means(outcomes, rng, NUM_RESAMPLES)
            resampled.append(statistic(means).mean(axis=-1))
    return _summary(np.mean(by_seed, axis=0), np.mean(resampled, axis=0))


def _summary(by_seed: np.ndarray, resampled: np.ndarray) -> Estimate:
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(by_seed.mean()), Interval(float(low), float(high)), over_seeds(by_seed))


def resampled_means(
    outcomes: np.ndarray, rng: np.random.Generator, num_resamples: int
) -> np.ndarray:
    """Draw images, the last axis of ``outcomes``, with replacement and return the means.

    The result is [resamples, *outcomes.shape[:-1]]. Images on which all methods and seeds have
    the same outcome are interchangeable, so it is enough to draw how often each distinct column
    of outcomes occurs: the same distribution, and 40,000 images cost no more than 400.
    """
    num_images = outcomes.shape[-1]
    rows = outcomes.reshape(-1, num_images)
    # Each column as one integer: np.unique is 50 times faster on integers than on columns.
    codes = np.zeros(num_images, np.int64)
    for row in rows:
        if codes.max() >= 2**62:
            codes = np.unique(codes, return_inverse=True)[1]
        codes = 2 * codes + row
    _, where, counts = np.unique(codes, return_index=True, return_counts=True)
    order = np.argsort(-counts)  # multinomial is quickest with the most frequent first
    drawn = rng.multinomial(num_images, counts[order] / num_images, size=num_resamples)
    patterns = rows[:, where[order]].T.astype(float)  # BLAS multiplies floats, not integers
    return (drawn @ patterns / num_images).reshape(num_resamples, *outcomes.shape[:-1])


def without_images(values: Sequence[float]) -> Estimate:
    """Return the mean of one value a seed, with its interval over seeds alone."""
    values = np.asarray(values)
    return Estimate(float(values.mean()), None, over_seeds(values))


def stacked(
    bits: Sequence[Mapping[str, np.ndarray] | None], names: Iterable[str]
) -> dict[str, np.ndarray] | None:
    """Stack the seeds' correctness: name -> [seeds, images]; None if any seed's is missing."""
    if not bits or any(b is None for b in bits):
        return None
    return {name: np.stack([b[name] for b in bits]) for name in names}


def over_seeds(values: np.ndarray) -> Interval | None:
    """Return Student's t interval of the mean of [seeds] values; None below two seeds."""
    if len(values) < 2:
        return None
    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean() - half), float(values.mean() + half))
