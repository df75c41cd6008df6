"""Do methods stand in the published order? Kendall's tau-b against published averages.

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

PUBLISHED_ON = ("vit_b32", "vision8")  # what most methods are published for
ALL_PERMUTATIONS_OF = 8  # 40,320; of more methods so many are drawn:
NUM_PERMUTATIONS = 100_000
LEAST = 3  # methods; two are in order or not


@dataclass(frozen=True, kw_only=True)
class Tau:
    value: float
    p: float  # two-sided, of no association
    num: int  # methods


@dataclass(frozen=True, kw_only=True)
class Reversed:
    """Two methods that stand the other way round here, with more than chance behind it."""

    better: Row  # here
    worse: Row
    here: Estimate  # better minus worse, paired
    published: float  # better minus worse, below zero


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """One table's order against figures of one generation of checkpoints."""

    generation: str
    sources: tuple[str, ...]
    merged: Tau | None  # of methods that serve one model to all tasks; None below LEAST
    all: Tau  # with references and with methods that must know the task
    num_pairs: int  # of all, those that are not equal in the published figures
    num_reversed: int
    reversed: tuple[Reversed, ...]  # only those whose interval over images leaves zero out


def find_orderings(table: Table) -> list[Ordering]:
    """Against each generation that has figures of at least three methods of the table.

    Of a method with several rows the first one with the published knobs counts.
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

    merged = [m for m in figures if not (rows[m].is_reference or rows[m].task_known)]
    pairs, other_way, found = 0, 0, []
    for pair in combinations(figures, 2):
        # The published worse one, first.
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
    )


def _difference(first: Row, second: Row) -> Estimate | None:
    """None where per-image correctness is lost, or no seed is common."""
    seeds = sorted(set(first.seeds) & set(second.seeds))
    if not seeds or first.correct is None or second.correct is None:
        return None
    return statistics.difference(first.correct_of(seeds), second.correct_of(seeds))


def kendall(first: Sequence[float], second: Sequence[float]) -> Tau:
    """tau-b, which allows for ties, and its p-value over permutations: all, or many at random.

    nan and 1 where all values of one side are equal.
    """
    num = len(first)
    i, j = np.triu_indices(num, k=1)
    x, y = np.asarray(first, float), np.asarray(second, float)
    signs = np.sign(x[i] - x[j])
    own_signs = np.sign(y[i] - y[j])
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
    permuted = y[orders]
    sums = np.sign(permuted[:, i] - permuted[:, j]) @ signs
    extreme = int((np.abs(sums) >= abs(observed)).sum())
    p = extreme / len(orders) if exact else (1 + extreme) / (len(orders) + 1)
    return Tau(value=float(observed / norm), p=p, num=num)
