"""95% intervals and p-values: over test images, and over fine-tuning seeds.

Images are resampled within each task; the tasks are those of the suite and stay. Whatever is
compared (a method and the individual models, two methods, several seeds) is resampled on the
same images, so what makes an image easy or hard for both cancels.

- A mean over tasks: percentile bootstrap over images; Student's t over seeds.
- One task's accuracy: Wilson (1927), which holds near 0 and 1 and for few images, where a
  bootstrap is too narrow. One task's paired difference: Bonett and Price (2012), likewise.
- p: sign flips. Were two methods equal, which of them was right on an image would be chance.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 15.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

NUM_RESAMPLES = 10_000
Z = float(ndtri(0.975))

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
    return _mean_score(correct, seed)


def difference(first: Correct, second: Correct, seed: int = 0) -> Estimate:
    """Mean accuracy of ``first`` minus that of ``second``, on the same images."""
    return _mean_score(image_differences(first, second), seed)


def normalized(correct: Correct, individual: Correct, seed: int = 0) -> Estimate:
    """Mean over tasks of accuracy / accuracy of the individual model, both on the same images.

    ValueError when an individual model has no image right.
    """
    _check_never_zero(individual)
    return _estimate([correct, individual], lambda a: a[..., 0, :] / a[..., 1, :], seed)


def normalized_difference(
    first: Correct, second: Correct, individual: Correct, seed: int = 0
) -> Estimate:
    """Normalized accuracy of ``first`` minus that of ``second``, all on the same images."""
    _check_never_zero(individual)
    return _estimate(
        [first, second, individual],
        lambda a: (a[..., 0, :] - a[..., 1, :]) / a[..., 2, :],
        seed,
    )


def image_differences(first: Correct, second: Correct) -> dict[str, np.ndarray]:
    """task -> seeds x images: 1 where only ``first`` was right, -1 where only ``second``."""
    _check_paired([first, second])
    return {task: first[task].astype(np.int8) - second[task] for task in first}


def wilson(accuracy: float, num_images: int) -> Interval:
    """Of one task's accuracy.

    A mean over seeds counts as one seed: that holds however alike the seeds are, and is too wide
    where they are not.
    """
    shrunk = 1 / (1 + Z**2 / num_images)
    middle = shrunk * (accuracy + Z**2 / (2 * num_images))
    spread = accuracy * (1 - accuracy) / num_images + (Z / (2 * num_images)) ** 2
    half = shrunk * Z * np.sqrt(spread)
    return Interval(float(middle - half), float(middle + half))


def task_difference(differences: np.ndarray) -> Interval:
    """Of one task's paired difference; seeds x images, as of `image_differences`.

    Two images are added, one that each method alone has right.
    """
    mean = differences.mean(axis=0)  # over seeds: what an image says
    num = mean.size + 2
    middle = mean.sum() / num
    variance = ((mean**2).sum() + 2) / num - middle**2
    half = Z * np.sqrt(variance / num)
    return Interval(float(middle - half), float(middle + half))


def sign_flip_p(
    scores: Mapping[str, np.ndarray], seed: int = 0, num_flips: int = NUM_RESAMPLES
) -> float:
    """Two-sided p-value of the mean over tasks of mean scores being zero.

    ``scores``: task -> seeds x images, differences of two methods. The signs of an image, of all
    its seeds at once, are flipped at random, ``num_flips`` times in each task; with one task and
    one seed this is McNemar's exact test. The p-value is at least 1 / (num_flips + 1).
    """
    rng = np.random.default_rng(seed)
    observed, flipped = 0.0, np.zeros(num_flips)
    for of_task in scores.values():
        of_image = np.asarray(of_task, float).sum(axis=0)
        observed += of_image.mean()
        # Images of one magnitude are interchangeable: how many turn positive is all there is.
        # Rounded, because sums of the same terms in another order differ in their last digits.
        magnitudes, counts = np.unique(np.abs(of_image).round(12), return_counts=True)
        positive = rng.binomial(counts, 0.5, size=(num_flips, len(counts)))
        flipped += (2 * positive - counts) @ magnitudes / of_image.size
    # A hair less: equal sums count as equal.
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
    """The mean over tasks, seeds and images of small whole numbers, task -> seeds x images."""
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
    """The mean over tasks and seeds of ``statistic``: (..., methods, seeds) -> (..., seeds)."""
    _check_paired(correct)
    rng = np.random.default_rng(seed)
    by_seed, resampled = [], []
    for task in correct[0]:
        outcomes = np.stack([c[task] for c in correct])
        by_seed.append(statistic(outcomes.mean(axis=-1)))
        # A resample of few images may have none right: its ratio is then not finite, and the
        # interval need not be either, which is what such a sample can say.
        with np.errstate(divide="ignore", invalid="ignore"):
            resampled.append(statistic(resampled_means(outcomes, rng)).mean(axis=-1))
    return _summary(np.mean(by_seed, axis=0), np.mean(resampled, axis=0))


def _summary(by_seed: np.ndarray, resampled: np.ndarray) -> Estimate:
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(by_seed.mean()), Interval(float(low), float(high)), over_seeds(by_seed))


def resampled_means(
    outcomes: np.ndarray, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> np.ndarray:
    """Means over the last axis, its entries drawn with replacement: (resamples, ...).

    Images with the same outcomes everywhere are interchangeable. So the counts are drawn over
    the few distinct outcomes, not over the images: the same distribution, and 40,000 images
    cost no more than 400.
    """
    num_images = outcomes.shape[-1]
    rows = outcomes.reshape(-1, num_images)
    # Outcomes as one integer an image; unique over integers is 50 times faster than over columns.
    codes = np.zeros(num_images, np.int64)
    for row in rows:
        if codes.max() >= 2**62:
            codes = np.unique(codes, return_inverse=True)[1]
        codes = 2 * codes + row
    _, where, counts = np.unique(codes, return_index=True, return_counts=True)
    order = np.argsort(-counts)  # numpy's draw is quickest with the most frequent first
    drawn = rng.multinomial(num_images, counts[order] / num_images, size=num_resamples)
    patterns = rows[:, where[order]].T.astype(float)  # of floats BLAS multiplies, of integers not
    return (drawn @ patterns / num_images).reshape(num_resamples, *outcomes.shape[:-1])


def over_seeds(values: np.ndarray) -> Interval | None:
    """Student's t interval of the mean of one value a seed; None below two seeds."""
    if len(values) < 2:
        return None
    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean() - half), float(values.mean() + half))
