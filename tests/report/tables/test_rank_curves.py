"""Rank curves: which Runs make one, and whether the fraction that keeps 99% is found."""

import math

import numpy as np
import pytest
from made_up.runs import make_run

from tsv_bench.report.tables.rank_curves import crossing, fraction_keeping, rank_curves
from tsv_bench.report.tables.table import build_tables

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
TRUTH = 0.083


def truth(fraction):
    """Return the kept accuracy: linear in the fraction's logarithm, 0.99 at TRUTH."""
    return 0.99 + 0.02 * math.log(fraction / TRUTH)


def drawn(num_images, seed, num_tasks=2, individual=0.9):
    """Draw per-image correctness whose expectation is the truth.

    An image that is kept at a fraction is kept at all larger ones.
    """
    rng = np.random.default_rng(seed)
    correct, own = [{} for _ in FRACTIONS], {}
    for task in map(str, range(num_tasks)):
        own[task] = rng.uniform(size=(1, num_images)) < individual
        lost_until = rng.uniform(size=(1, num_images))
        for bits, fraction in zip(correct, FRACTIONS, strict=True):
            bits[task] = own[task] & (lost_until < truth(fraction))
    return correct, own


def test_the_truth_is_found_with_many_images():
    found = fraction_keeping(FRACTIONS, *drawn(400_000, seed=0))
    assert found.low <= TRUTH <= found.high
    assert found.fraction == pytest.approx(TRUTH, rel=0.05)
    assert found.high / found.low < 1.15


def test_intervals_hold_the_truth_nineteen_times_in_twenty():
    found = [fraction_keeping(FRACTIONS, *drawn(20_000, seed)) for seed in range(60)]
    held = sum(kept.low <= TRUTH <= kept.high for kept in found)
    assert 53 <= held, held  # binomial: fewer than 53 of 60 has probability 1.3%, fixed seeds
    assert np.median([kept.fraction for kept in found]) == pytest.approx(TRUTH, rel=0.05)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([0.98, 0.98, 1.00], 0.1 * math.sqrt(10)),  # half way, in the logarithm
        ([0.99, 1.00, 1.00], 0.01),  # at the first
        ([1.00, 1.00, 1.00], 0.01),
        ([0.90, 0.95, 0.98], math.inf),
        ([1.00, 0.98, 1.00], 0.1 * math.sqrt(10)),  # dips below: only then for good
        ([0.98, 1.00, 0.98], math.inf),
    ],
)
def test_crossing(kept, expected):
    found = crossing((0.01, 0.1, 1.0), np.array([kept]), 0.99)
    assert found == pytest.approx([expected])


def test_a_share_never_reached_has_no_upper_bound():
    correct, own = drawn(500, seed=0)
    found = fraction_keeping(FRACTIONS[:2], correct[:2], own)
    assert found.high == math.inf and found.fraction == math.inf and found.low > 0.01


def compressed(fraction, seed=0, **changes):
    knobs = {"rank_fraction": fraction, "svd": "gram"}
    name = f"{fraction}-{seed}"
    return make_run("tsv_compress", seed, **{"knobs": knobs, "fingerprint": name} | changes)


@pytest.mark.usefixtures("few_resamples")
def test_curves_are_runs_that_differ_in_the_fraction_alone():
    other = {"rank_fraction": 0.3, "svd": "exact"}
    evaluated = [
        *(compressed(f, seed) for f in (0.5, 0.01, None) for seed in (0, 1)),
        compressed(0.3, knobs=other), make_run("individual"), make_run("individual", 1),
        make_run("tsv_merge"), make_run("ties"),
    ]  # fmt: skip
    (table,) = build_tables(evaluated)
    (curve,) = rank_curves(table)
    assert curve.label == "TSV-C" and curve.fractions == (0.01, 1 / 8, 0.5)
    assert [row.runs[0].knobs["rank_fraction"] for row in curve.rows] == [0.01, None, 0.5]
    assert curve.sizes is None and curve.kept() is not None


def test_bytes_are_of_a_task():
    evaluated = [compressed(f, stored_bytes=int(8e6 * f)) for f in (0.01, 0.5)]
    (curve,) = rank_curves(build_tables(evaluated)[0])
    assert curve.sizes == (10_000, 500_000)


def test_without_individual_models_nothing_is_said():
    (curve,) = rank_curves(build_tables([compressed(0.1), compressed(0.2)])[0])
    assert curve.kept() is None
