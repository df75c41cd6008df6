"""Tables of Runs: one for each backbone and suite, a row a method, seeds averaged."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

from tsv_bench.benchmark.doubts import doubts_of
from tsv_bench.benchmark.runs import Run, find_runs, load_correct
from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.beside_published import beside_published, has_published, source_notes
from tsv_bench.report.tables.edges import note_edges
from tsv_bench.report.tables.generalization import unseen_tasks, with_generalization
from tsv_bench.report.tables.notes import (
    check_same_images,
    note_differences,
    note_evaluation,
    note_routers,
    note_variants,
)
from tsv_bench.report.tables.row import Evaluated, Row, build_row, row_labels, unit_of
from tsv_bench.report.tables.statistics import Estimate
from tsv_bench.wording import suggested
from tsv_bench.wording.escaping import visible

log = logging.getLogger(__name__)

# The order of rows; a method that is not listed stands before the individual models.
ORDER = (
    "zero_shot",
    "weight_average",
    "task_arithmetic",
    "ties",
    "tsv_low_rank",
    "tsv_interference_only",
    "tsv_merge",
    "tsv_compress",
    "individual",
)
DIFFERENCES = (  # first minus second
    ("task_arithmetic", "weight_average"),
    ("tsv_merge", "task_arithmetic"),
    ("ties", "task_arithmetic"),
)
RATIOS = (("tsv_compress", "individual"),)

RowKey = tuple[str, str]  # method, knobs as json
Seeds = dict[int, Evaluated]  # fine-tuning seed -> Run and its correctness


@dataclass(frozen=True)
class Comparison:
    """Two rows of a table, paired on their common images and seeds."""

    text: str  # "TSV-M - Task Arithmetic"
    kind: str  # "difference" or "ratio"
    estimate: Estimate
    num_seeds: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """All rows of one backbone and one suite with the same selection of tasks."""

    name: str  # one word for file names, distinct among the tables of a folder
    backbone: str
    suite: str
    tasks: dict[str, str]  # task -> label
    num_images: int  # in the test splits of all tasks
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]  # what a reader must know before believing a number
    has_published: bool = False  # whether figures are published for this suite
    published_notes: tuple[str, ...] = ()  # sources of the published figures

    @property
    def title(self) -> str:
        unseen = f", {len(self.unseen)} unseen" if self.unseen else ""
        tasks = "1 task" if len(self.tasks) == 1 else f"{len(self.tasks)} tasks"
        return f"{self.backbone} on {self.suite}, {tasks}{unseen}"

    @property
    def unseen(self) -> dict[str, str]:
        """The tasks that were tested and not merged: task -> label."""
        return unseen_tasks(self.rows)

    @property
    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]

    @property
    def unit(self) -> str:
        """What is counted, "images" or "examples"."""
        return unit_of(self.runs)

    @property
    def sees_data(self) -> bool:
        """Whether a method saw data, so that what each saw is shown."""
        return any(row.data_kind != "none" for row in self.rows)

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})


def read_tables(folder: Path) -> list[Table]:
    """Build the tables of all Runs below ``folder``.

    Raises ValueError if there is no Run.
    """
    return build_tables(read_evaluated(folder))


def read_evaluated(folder: Path) -> list[Evaluated]:
    """Read all Runs below ``folder`` with their per-image correctness.

    Raises ValueError if there is no Run.
    """
    evaluated = with_correctness(find_runs(folder))
    if not evaluated:
        place = Path(folder).absolute()
        make = suggested.command("tsv-bench", "method=tsv_merge")
        missing = "" if place.is_dir() else ", a folder that does not exist"
        raise ValueError(
            f"no Run in {folder}: looked for json files in {place} and below{missing}. Name the "
            f"folder with paths.runs=FOLDER, or make one with: {make}"
        )
    return evaluated


def with_correctness(runs: Iterable[tuple[Path, Run]]) -> list[Evaluated]:
    """Read the per-image correctness of Runs, given with the paths of their files.

    It is None, with a warning, where its file is missing, damaged or of another Run.
    """
    evaluated: list[Evaluated] = []
    for path, run in runs:
        try:
            evaluated.append((run, load_correct(path, run)))
        except ValueError as error:  # a note below the table says so too
            log.warning("%s", visible(str(error)))
            evaluated.append((run, None))
    return evaluated


def build_tables(evaluated: Sequence[Evaluated]) -> list[Table]:
    """Build a table for each backbone, suite and selection of its tasks, in alphabetical order."""
    return [_build_table(name, group) for name, group in group_runs(evaluated).items()]


def group_runs(evaluated: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """Return the Runs of each table by the table's name."""
    groups: dict[tuple, list[Evaluated]] = {}
    for run, correct in evaluated:
        groups.setdefault((run.backbone, run.suite, tuple(run.tasks)), []).append((run, correct))
    named: dict[str, list[Evaluated]] = {}
    for (backbone, suite, _), group in sorted(groups.items(), key=lambda item: item[0]):
        # a-b on c and a on b-c have the same name, too.
        names = (f"{backbone}-{suite}" + (f"-{n}" if n > 1 else "") for n in count(1))
        named[next(name for name in names if name not in named)] = group
    return named


def _build_table(name: str, group: list[Evaluated]) -> Table:
    notes: list[str] = []
    newest = max((run for run, _ in group), key=lambda run: run.created)
    by_row = newest_by_row(_comparable(group, newest, notes), notes)
    individual = individual_of(by_row)
    labels = row_labels([seeds[min(seeds)][0] for seeds in by_row.values()])
    of_rows: dict[str, list[str]] = {}  # note -> labels of the rows that it is about
    rows = [
        with_generalization(build_row(label, runs, individual, of_rows), runs, individual)
        for label, runs in zip(labels, map(in_order, by_row.values()), strict=True)
    ]
    rows.sort(key=lambda row: (rank(row.method), row.label))
    notes += [
        f"{', '.join(row.label for row in rows if row.label in having)}: {text}"
        for text, having in of_rows.items()
    ]
    note_differences(rows, notes)
    note_evaluation(rows, notes)
    note_variants(rows, notes)
    note_routers(rows, notes)
    note_edges(rows, notes)
    notes += doubts_of([run for row in rows for run in row.runs])
    if published := has_published(newest, notes):
        rows = [beside_published(row, notes) for row in rows]
    comparisons = _compare(rows, notes)
    return Table(
        name=name,
        backbone=newest.backbone,
        suite=newest.suite,
        tasks=newest.tasks,
        num_images=sum(score.total for score in newest.test.values()),
        rows=tuple(rows),
        comparisons=tuple(comparisons),
        notes=tuple(notes),
        has_published=published,
        published_notes=source_notes(rows),
    )


def newest_by_row(group: Sequence[Evaluated], notes: list[str]) -> dict[RowKey, Seeds]:
    """Return the newest Run of each row and seed.

    Adds a note for each older Run of the same row and seed.
    """
    by_row: dict[RowKey, Seeds] = {}
    for run, correct in sorted(group, key=lambda evaluated: evaluated[0].created):
        seeds = by_row.setdefault((run.method, json.dumps(run.knobs, sort_keys=True)), {})
        if run.seed in seeds:
            notes.append(
                f"{run.label}, seed {run.seed}: the newest of several Runs "
                f"({run.fingerprint}, {run.created}) is shown, "
                f"not {seeds[run.seed][0].fingerprint}."
            )
        seeds[run.seed] = (run, correct)
    return by_row


def in_order(seeds: Seeds) -> list[Evaluated]:
    """Return the Runs of a row by seed."""
    return [seeds[seed] for seed in sorted(seeds)]


def individual_of(by_row: Mapping[RowKey, Seeds]) -> Seeds:
    """Return the individual models' Run of each seed; {} if there are none."""
    return next((seeds for (method, _), seeds in by_row.items() if method == "individual"), {})


def _comparable(group: list[Evaluated], newest: Run, notes: list[str]) -> list[Evaluated]:
    """Return the Runs on the same test images as the newest; add a note for each other Run."""
    kept = []
    for run, correct in group:
        try:
            check_same_images(run, newest)
        except ValueError as error:
            notes.append(f"left out {run.label}, seed {run.seed} ({run.fingerprint}): {error}")
        else:
            kept.append((run, correct))
    return kept


def _compare(rows: list[Row], notes: list[str]) -> list[Comparison]:
    """Compare the pairs of `DIFFERENCES` and `RATIOS` on the seeds that both rows have.

    Adds a note where a ratio would divide by zero.
    """
    comparisons = []
    kinds = (
        ("difference", DIFFERENCES, "correct", ""),
        ("ratio", RATIOS, "correct", ""),
        ("difference", DIFFERENCES, "unseen_correct", ", unseen tasks"),
    )
    for kind, pairs, name, where in kinds:
        for pair in pairs:
            sides = [[r for r in rows if r.method == m and getattr(r, name)] for m in pair]
            for first, second in product(*sides):
                seeds = sorted(set(first.seeds) & set(second.seeds))
                if not seeds:
                    continue
                outcomes = [row.correct_of(seeds, name) for row in (first, second)]
                sign = "-" if kind == "difference" else "/"
                text = f"{first.label} {sign} {second.label}{where}"
                try:
                    if kind == "difference":
                        estimate = statistics.difference(*outcomes)
                    elif first.normalized.images and len(sides[1]) == 1:
                        estimate = first.normalized  # by these individual models, on all its seeds
                    else:
                        estimate = statistics.normalized(*outcomes)
                except ValueError as error:
                    notes.append(f"no {text}: {error}")
                    continue
                comparisons.append(Comparison(text, kind, estimate, len(seeds)))
    return comparisons


def rank(method: str) -> float:
    """Return the number by which rows are ordered: the method's place in `ORDER`."""
    return ORDER.index(method) if method in ORDER else len(ORDER) - 1.5
