"""Accuracy against the share of ranks kept, of one method's Runs that differ in nothing else.

And the least share that keeps 99% of the individual models' accuracy, with its interval.
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
# The curve of every resample costs one resampled mean a fraction, a seed and a task.
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Kept:
    """The fraction from which on a share of the individual accuracy is kept, and its bounds.

    Infinite: more than was measured. The least fraction that was measured: that or less.
    """

    fraction: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class RankCurve:
    """Rows of one method by rank fraction; two or more."""

    label: str
    fractions: tuple[float, ...]  # increasing
    rows: tuple[Row, ...]
    individual: Row | None

    @property
    def sizes(self) -> tuple[float, ...] | None:
        """Bytes a task, beside the pretrained backbone; None where a Run does not say."""
        sizes = [row.stored_per_task for row in self.rows]
        return None if None in sizes else tuple(sizes)

    def kept(self, share: float = SHARE) -> Kept | None:
        """None where seeds or per-image correctness are missing for it."""
        rows = [*self.rows, self.individual]
        if any(row is None or row.correct is None for row in rows):
            return None
        seeds = set.intersection(*(set(row.seeds) for row in rows))
        if not seeds:
            return None
        *correct, individual = (row.correct_of(sorted(seeds)) for row in rows)
        return fraction_keeping(self.fractions, correct, individual, share)


def rank_curves(table: Table) -> list[RankCurve]:
    """Of every method with Runs of two or more rank fractions, all other knobs being equal."""
    individual = next((row for row in table.rows if row.method == "individual"), None)
    groups: dict[tuple[str, str], dict[float, Row]] = {}
    for row in table.rows:
        knobs = row.runs[0].knobs
        if KNOB in knobs:
            others = json.dumps(_without(knobs), sort_keys=True)
            by_fraction = groups.setdefault((row.method, others), {})
            # null is an equal share; where that was also asked for by its number, it is the same.
            by_fraction.setdefault(knobs[KNOB] or 1 / len(table.tasks), row)
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
    """The least fraction from which on normalized accuracy stays at ``share`` or above.

    ``correct`` is of each of the increasing ``fractions``. Between two of them accuracy is taken
    as linear in the fraction's logarithm. The bounds hold 95%, over images: those of all
    fractions and of the individual models are resampled together.
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
    """Where each curve (a row of ``kept``) rises above ``share`` for the last time.

    The first fraction where it is never below, infinity where it still is at the last one.
    """
    log = np.log(fractions)
    below = kept < share
    num = len(log)
    last = num - 1 - below[:, ::-1].argmax(axis=1)  # the last fraction that is below
    inside = np.minimum(last, num - 2)
    every = np.arange(len(kept))
    start, end = kept[every, inside], kept[every, inside + 1]
    # Curves that are never, or still, below get their value afterwards, whatever comes out here.
    with np.errstate(all="ignore"):
        part = (share - start) / (end - start)
        found = np.exp(log[inside] + part * (log[inside + 1] - log[inside]))
    found = np.where(last == num - 1, math.inf, found)
    return np.where(below.any(axis=1), found, fractions[0])


def _without(knobs: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in knobs.items() if name != KNOB}
