"""Records of csv files: fractions in full precision, empty cells for what is missing."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from tsv_bench.benchmark import published
from tsv_bench.report.tables.edges import alpha_at_edge
from tsv_bench.report.tables.generalization import unseen_accuracy, unseen_intervals
from tsv_bench.report.tables.row import Row
from tsv_bench.report.tables.statistics import Estimate, Interval
from tsv_bench.report.tables.table import Table
from tsv_bench.wording.escaping import escape_csv


def to_csv(records: Sequence[dict[str, Any]], first: Sequence[str] = ()) -> str:
    """Return the records as csv, a line each; a record need not have every column.

    The columns ``first`` are always there, and stand before the others.
    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    names = dict.fromkeys([*first, *(name for record in records for name in record)])
    file = io.StringIO()
    writer = csv.DictWriter(file, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: escape_csv(cell) for name, cell in r.items()} for r in records)
    return file.getvalue()


def row_record(table: Table, row: Row) -> dict[str, Any]:
    """Return the record of a row: accuracies in [0, 1] with their bounds, alpha, seconds.

    Alpha is the mean over seeds, ``alphas_at_edge`` how many seeds' alpha is at the edge of its
    candidates. The bounds of a task's accuracy are Wilson's.
    """
    record = {"backbone": table.backbone, "suite": table.suite, "method": row.method}
    record |= {"label": row.label, "seeds": " ".join(map(str, row.seeds))}
    record |= {"data": row.data} if table.sees_data else {}
    for name in ("absolute", "normalized"):
        estimate: Estimate = getattr(row, name)
        record |= {name: estimate.value}
        record |= bounds_record(f"{name}_images", estimate.images)
        record |= bounds_record(f"{name}_seeds", estimate.seeds)
    for name in ("unseen", "unseen_normalized") if table.unseen else ():
        estimate = getattr(row, name) or Estimate(math.nan)
        record |= {name: "" if math.isnan(estimate.value) else estimate.value}
        record |= bounds_record(f"{name}_images", estimate.images)
        record |= bounds_record(f"{name}_seeds", estimate.seeds)
    record |= {"alpha": math.fsum(row.alphas) / len(row.alphas)}
    seconds = "" if row.seconds is None else row.seconds
    record |= {"alphas_at_edge": sum(map(alpha_at_edge, row.runs)), "seconds": seconds}
    for kind in ("found", "oracle", "head_found"):
        if scores := row.router(kind):
            record |= {f"router_{kind}": math.fsum(scores.values()) / len(scores)}
    record |= _published_record(table, row) if table.has_published else {}
    for task, interval in row.accuracy_intervals.items():
        record |= {f"accuracy_{task}": row.accuracy[task]}
        record |= bounds_record(f"accuracy_{task}", interval)
    for task, interval in unseen_intervals(row).items():
        record |= {f"unseen_accuracy_{task}": unseen_accuracy(row)[task]}
        record |= bounds_record(f"unseen_accuracy_{task}", interval)
    for name, estimate in row.corrupted.items():
        column = f"corrupted_{name or 'mean'}"
        record |= {column: estimate.value} | bounds_record(f"{column}_images", estimate.images)
        record |= bounds_record(f"{column}_seeds", estimate.seeds)
    return record


def bounds_record(name: str, interval: Interval | None) -> dict[str, Any]:
    """Return ``name``_low and ``name``_high, empty without an interval."""
    low, high = (interval.low, interval.high) if interval else ("", "")
    return {f"{name}_low": low, f"{name}_high": high}


def _published_record(table: Table, row: Row) -> dict[str, Any]:
    """Return the published figures, and our differences from those of the same checkpoints."""
    figure = row.published
    record: dict[str, Any] = {"generation": row.generation}
    for name in ("absolute", "normalized", "generation", "source", "sure"):
        record[f"published_{name}"] = getattr(figure, name, None)
    for name in ("absolute", "normalized"):
        record[f"difference_{name}"] = row.differences.get(name)
    if figure:
        single = published.accuracies(table.backbone, table.suite, row.method)
        record |= {f"published_accuracy_{task}": value for task, value in single.items()}
    return {name: "" if value is None else value for name, value in record.items()}
