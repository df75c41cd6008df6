"""Rank curves: a method's accuracy against the share of ranks that it keeps.

And the smallest share that keeps 99% of the individual models' accuracy, with its interval.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tsv_bench.benchmark.runs import Run
from tsv_bench.report.tables.row import Row, row_labels
from tsv_bench.report.tables.statistics import Correct, resampled_means
from tsv_bench.report.tables.table import Table

KNOB = "rank_fraction"
SHARE = 0.99
# A curve a resample: each costs as many resampled means as there are fractions, seeds and tasks.
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Kept:
    """The smallest rank fraction that keeps a share of the individual accuracy, with 95% bounds.

    Infinity means above the largest measured fraction. The smallest measured fraction means
    that one or less.
    """

    fraction: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class RankCurve:
    """Two or more rows of one method that differ in their rank fraction alone."""

    label: str
    fractions: tuple[float, ...]  # increasing
    rows: tuple[Row, ...]
    individual: Row | None

    @property
    def sizes(self) -> tuple[float, ...] | None:
        """Bytes a task beside the pretrained backbone, one a row; None if a Run does not say."""
        sizes = [row.stored_per_task for row in self.rows]
        return None if None in sizes else tuple(sizes)

    def kept(self, share: float = SHARE) -> Kept | None:
        """Find the fraction that keeps ``share``; None without common seeds or correctness."""
        rows = [*self.rows, self.individual]
        if any(row is None or row.correct is None for row in rows):
            return None
        seeds = set.intersection(*(set(row.seeds) for row in rows))
        if not seeds:
            return None
        *correct, individual = (row.correct_of(sorted(seeds)) for row in rows)
        return fraction_keeping(self.fractions, correct, individual, share)


def rank_curves(table: Table) -> list[RankCurve]:
    """Return a curve for every set of rows that differ in their rank fraction alone."""
    individual = next((row for row in table.rows if row.method == "individual"), None)
    groups: dict[tuple[str, str], dict[float, Row]] = {}
    for row in table.rows:
        knobs = row.runs[0].knobs
        if KNOB not in knobs:
            continue
        # null means 1 / number of tasks; a row with that number is the same, and left out.
        fraction = 1 / len(table.tasks) if knobs[KNOB] is None else knobs[KNOB]
        # In a method of somebody's own the knob may be anything.
        if isinstance(fraction, int | float) and 0 < fraction <= 1:
            others = json.dumps(_without(knobs), sort_keys=True)
            groups.setdefault((row.method, others), {}).setdefault(fraction, row)
    groups = {key: rows for key, rows in groups.items() if len(rows) > 1}
    first: list[Run] = [next(iter(rows.values())).runs[0] for rows in groups.values()]
    labels = row_labels([replace(run, knobs=_without(run.knobs)) for run in first])
    return [
        RankCurve(
            label=label,
            fractions=tuple(sorted(rows)),
            rows=tuple(rows[fraction] for fraction in sorted(rows)),
            individual=individual,
        )
        for label, rows in zip(labels, groups.values(), strict=True)
    ]


def fraction_keeping(
    fractions: Sequence[float],
    correct: Sequence[Correct],
    individual: Correct,
    share: float = SHARE,
    seed: int = 0,
) -> Kept:
    """Find the smallest fraction from which on normalized accuracy stays at or above ``share``.

    ``correct`` has the per-image correctness (task -> seeds x images) at each of the increasing
    ``fractions``. Between two fractions, accuracy is interpolated linearly in the logarithm of
    the fraction. The 95% bounds are a bootstrap over images, on which all fractions and the
    individual models are paired.
    """
    rng = np.random.default_rng(seed)
    measured, resampled = [], []
    for task, bits in individual.items():
        outcomes = np.stack([*(c[task] for c in correct), bits])  # fractions + 1, seeds, images
        for means, into in (
            (outcomes.mean(axis=-1)[None], measured),
            (resampled_means(outcomes, rng, NUM_RESAMPLES), resampled),
        ):
            with np.errstate(divide="ignore", invalid="ignore"):
                into.append((means[:, :-1] / means[:, -1:]).mean(axis=-1))
    (value,) = crossing(fractions, np.mean(measured, axis=0), share)
    values = crossing(fractions, np.mean(resampled, axis=0), share)
    # No interpolation between quantiles: some may be infinite.
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return Kept(float(value), float(low), float(high))


def crossing(fractions: Sequence[float], kept: np.ndarray, share: float) -> np.ndarray:
    """Find where each curve rises to ``share`` for the last time.

    ``kept`` is curves x fractions. Returns one fraction a curve: the first one if the curve is
    never below, infinity if it ends below.
    """
    log = np.log(fractions)
    below = kept < share
    num = len(log)
    last = num - 1 - below[:, ::-1].argmax(axis=1)  # the last fraction that is below
    inside = np.minimum(last, num - 2)
    every = np.arange(len(kept))
    start, end = kept[every, inside], kept[every, inside + 1]
    # Interpolate every curve; those that are never below, or end below, get their values after.
    with np.errstate(all="ignore"):
        part = (share - start) / (end - start)
        found = np.exp(log[inside] + part * (log[inside + 1] - log[inside]))
    found = np.where(last == num - 1, math.inf, found)
    return np.where(below.any(axis=1), found, fractions[0])


def _without(knobs: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in knobs.items() if name != KNOB}
