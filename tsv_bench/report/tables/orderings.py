"""The order of methods here against the published order, by Kendall's tau-b.

Kendall (1945), The treatment of ties in ranking problems, Biometrika 33:239.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from tsv_bench.benchmark import published
from tsv_bench.benchmark.published import Figure
from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.row import Row
from tsv_bench.report.tables.statistics import Estimate
from tsv_bench.report.tables.table import Table

PUBLISHED_ON = ("vit_b32", "vision8")  # where most methods have published figures
ALL_PERMUTATIONS_OF = 8  # methods or fewer: 40,320 permutations. With more methods, draw these:
NUM_PERMUTATIONS = 100_000
LEAST = 3  # methods that an order needs


@dataclass(frozen=True, kw_only=True)
class Tau:
    """Kendall's tau-b of two orders."""

    value: float  # in [-1, 1]; nan if all values of one side are equal
    p: float  # two-sided, of the hypothesis that the orders are independent
    num: int  # methods


@dataclass(frozen=True, kw_only=True)
class Reversed:
    """Two methods in the opposite of the published order, by more than chance."""

    better: Row  # here
    worse: Row
    here: Estimate  # accuracy of better minus worse, paired on images
    published: float  # published accuracy of better minus worse, below zero


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """The order of one table's methods against figures of one generation of checkpoints."""

    generation: str
    sources: tuple[str, ...]
    merged: Tau | None  # methods that serve one model to all tasks; None below LEAST
    all: Tau  # these, the references, and methods that must know the task
    num_pairs: int  # pairs of methods whose published figures differ
    num_reversed: int  # pairs in the opposite order here
    reversed: tuple[Reversed, ...]  # those whose interval over images excludes zero
    quoted: tuple[str, ...] = ()  # labels of methods whose figure was not read in its source


def find_orderings(table: Table) -> list[Ordering]:
    """Compare the table's order with each generation that has figures for three of its methods.

    A method with several rows is represented by the first one with the published knobs.
    """
    rows: dict[str, Row] = {}
    for row in table.rows:
        if not published.other_knobs(row.method, row.runs[0].knobs):
            rows.setdefault(row.method, row)
    return [
        _ordering(generation, rows, {m: figures[m] for m in rows if m in figures})
        for generation, figures in published.averages(*PUBLISHED_ON).items()
        if len(set(figures) & set(rows)) >= LEAST
    ]


def _ordering(generation: str, rows: dict[str, Row], figures: dict[str, Figure]) -> Ordering:
    def tau(methods: Sequence[str]) -> Tau | None:
        if len(methods) < LEAST:
            return None
        ours = [rows[m].absolute.value for m in methods]
        return kendall(ours, [figures[m].absolute for m in methods])

    merged = [
        m for m in figures if not rows[m].is_reference and rows[m].served not in ("routed", "own")
    ]
    pairs, other_way, found = 0, 0, []
    for pair in combinations(figures, 2):
        # a is the one with the lower published figure.
        a, b = sorted(pair, key=lambda method: figures[method].absolute)
        gap = figures[a].absolute - figures[b].absolute
        pairs += gap != 0
        if gap == 0 or rows[a].absolute.value <= rows[b].absolute.value:
            continue
        other_way += 1
        here = _difference(rows[a], rows[b])
        if here and here.images.low > 0:
            found.append(Reversed(better=rows[a], worse=rows[b], here=here, published=gap))
    return Ordering(
        generation=generation,
        sources=tuple(dict.fromkeys(figure.source for figure in figures.values())),
        merged=tau(merged),
        all=tau(list(figures)),
        num_pairs=pairs,
        num_reversed=other_way,
        reversed=tuple(sorted(found, key=lambda one: -one.here.value)),
        quoted=tuple(rows[m].label for m, f in figures.items() if f.sure != "primary"),
    )


def _difference(first: Row, second: Row) -> Estimate | None:
    """Return first minus second; None without per-image correctness or a common seed."""
    seeds = sorted(set(first.seeds) & set(second.seeds))
    if not seeds or first.correct is None or second.correct is None:
        return None
    return statistics.difference(first.correct_of(seeds), second.correct_of(seeds))


def kendall(first: Sequence[float], second: Sequence[float]) -> Tau:
    """Compute tau-b, which allows for ties, and its p-value by permutation.

    Up to `ALL_PERMUTATIONS_OF` values all permutations are counted, above that random ones.
    """
    num = len(first)
    i, j = np.triu_indices(num, k=1)
    x, y = np.asarray(first, float), np.asarray(second, float)
    signs, own_signs = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
    norm = math.sqrt((signs**2).sum() * (own_signs**2).sum())
    if norm == 0:
        return Tau(value=math.nan, p=1.0, num=num)
    observed = signs @ own_signs  # pairs in the same order minus pairs in the other
    exact = num <= ALL_PERMUTATIONS_OF
    if exact:
        orders = np.array(list(permutations(range(num))))
    else:
        rng = np.random.default_rng(0)
        orders = rng.permuted(np.tile(np.arange(num), (NUM_PERMUTATIONS, 1)), axis=1)
    permuted = np.ascontiguousarray(y[orders].T)  # [methods, permutations]
    sums = np.zeros(len(orders))
    for k in range(num - 1):  # one method's pairs at a time: of 40 methods, all take gigabytes
        sums += np.sign(x[k] - x[k + 1 :]) @ np.sign(permuted[k] - permuted[k + 1 :])
    extreme = int((np.abs(sums) >= abs(observed)).sum())
    p = extreme / len(orders) if exact else (1 + extreme) / (len(orders) + 1)
    return Tau(value=float(observed / norm), p=p, num=num)
