"""The layout "paper": methods down, backbones and suites across, absolute (normalized) in a cell.

Below a method stand its published figures, a line for each generation of checkpoints, and the
differences from those of the same checkpoints as ours.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tsv_bench.benchmark import published
from tsv_bench.report.tables.beside_published import source_notes
from tsv_bench.report.tables.row import Row, row_labels
from tsv_bench.report.tables.table import Table, rank
from tsv_bench.report.text.csv_records import to_csv
from tsv_bench.report.text.numbers import made_of
from tsv_bench.report.text.sheet import Sheet

COLUMNS_A_BLOCK = 4  # suites that fit side by side on a terminal


class Column(NamedTuple):
    """One backbone on one suite."""

    backbone: str
    suite: str
    table: Table | None  # None if there is no Run


class Cell(NamedTuple):
    """Accuracies or differences, as fractions; None if unknown."""

    absolute: float | None
    normalized: float | None
    comparable: bool = True  # whether measured on the same checkpoints as ours
    digits: int = 2  # after the point of a percentage; two as in the paper's tables


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a grid: our accuracies of a method, its published figures, or the differences."""

    method: str
    label: str
    figures: str  # "ours", "published" or "difference"
    generation: str  # of the checkpoints
    cells: tuple[Cell | None, ...]  # one for each column


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All methods on all backbones and suites of one kind."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def build_grids(tables: Sequence[Table]) -> list[Grid]:
    """Build a grid of the suites with published figures, and one of all other suites."""
    paper = {(table.backbone, table.suite): table for table in tables if table.has_published}
    known = [name for name in published.backbones() if any(b == name for b, _ in paper)]
    others = sorted({backbone for backbone, _ in paper} - set(known))
    grids = [
        [Column(b, s, paper.get((b, s))) for b in [*known, *others] for s in published.suites()],
        [Column(t.backbone, t.suite, t) for t in tables if not t.has_published],
    ]
    return [_build_grid(columns) for columns in grids if columns]


def _build_grid(columns: list[Column]) -> Grid:
    found: dict[tuple[str, str], dict[int, Row]] = {}
    for index, column in enumerate(columns):
        for row in column.table.rows if column.table else ():
            knobs = json.dumps(row.runs[0].knobs, sort_keys=True)
            found.setdefault((row.method, knobs), {})[index] = row
    # New labels: knobs that differ between columns need not differ within any one table.
    labels = row_labels([next(iter(rows.values())).runs[0] for rows in found.values()])
    lines: list[Line] = []
    named = zip(labels, found.items(), strict=True)
    for label, ((method, _), rows) in sorted(named, key=lambda n: (rank(n[1][0][0]), n[0])):
        lines += _lines(method, label, [rows.get(index) for index in range(len(columns))])
    return Grid(columns=tuple(columns), lines=tuple(lines), notes=tuple(_notes(columns)))


def _lines(method: str, label: str, rows: list[Row | None]) -> list[Line]:
    """Return our line of a method, then published figures and differences by generation."""

    def line(figures: str, generation: str, cells: list[Cell | None]) -> Line:
        return Line(
            method=method, label=label, figures=figures, generation=generation, cells=tuple(cells)
        )

    generations = sorted({row.generation for row in rows if row})
    ours = [row and Cell(row.absolute.value, _known(row.normalized.value)) for row in rows]
    lines = [line("ours", ", ".join(generations), ours)]
    for generation in dict.fromkeys(r.published.generation for r in rows if r and r.published):
        those = [
            row if row and row.published and row.published.generation == generation else None
            for row in rows
        ]
        theirs = [
            row and Cell(*row.published[:2], row.comparable, row.published.digits) for row in those
        ]
        lines.append(line("published", generation, theirs))
        if any(row and row.differences for row in those):
            found = [row.differences if row else {} for row in those]
            cells = [Cell(d.get("absolute"), d.get("normalized")) if d else None for d in found]
            lines.append(line("difference", generation, cells))
    return lines


def _notes(columns: list[Column]) -> list[str]:
    """Return the notes of all tables; a note that some tables lack names those that have it."""
    tables = [column.table for column in columns if column.table]
    having: dict[str, list[str]] = {}
    for table in tables:
        for note in table.notes:
            having.setdefault(note, []).append(table.name)
    notes = [
        note if len(names) == len(tables) else f"{', '.join(names)}: {note}"
        for note, names in having.items()
    ]
    return [*notes, *source_notes([row for table in tables for row in table.rows])]


def paper_sheet(grid: Grid) -> Sheet:
    """Return a grid as texts."""
    backbones = [column.backbone for column in grid.columns]
    suites = [column.suite for column in grid.columns]
    labels = published.backbones()
    groups = [(labels.get(b, b), backbones.count(b)) for b in dict.fromkeys(backbones)]
    tasks = published.suites()
    runs = [run for column in grid.columns if column.table for run in column.table.runs]
    return Sheet(
        title=f"{', '.join(text for text, _ in groups)} on {', '.join(dict.fromkeys(suites))}",
        caption=f"Percent, absolute (normalized) accuracy, means over tasks; {made_of(runs)}",
        header=[
            "method",
            *(f"{len(tasks[s])} tasks" if s in tasks else s for _, s, _ in grid.columns),
        ],
        groups=[("", 1), *groups],
        rows=[[_label(line), *(_text(line, cell) for cell in line.cells)] for line in grid.lines],
        notes=grid.notes,
    )


def blocks(sheet: Sheet) -> list[list[list[str]]]:
    """Split a sheet into blocks narrow enough for a terminal: rows of cells, header first."""
    parts, column = [], 1
    for text, count in sheet.groups[1:]:
        for start in range(column, column + count, COLUMNS_A_BLOCK):
            stop = min(start + COLUMNS_A_BLOCK, column + count)
            rows = [[row[0], *row[start:stop]] for row in sheet.rows]
            # A line of figures or differences without any in this block is left out.
            rows = [r for r in rows if not r[0].startswith(" ") or set(r[1:]) != {"-"}]
            parts.append([[text, *sheet.header[start:stop]], *rows])
        column += count
    return parts


def paper_csv(grids: Sequence[Grid]) -> str:
    """Return the lines of all grids as csv: fractions in full precision, empty cells for unknown.

    Published figures of other checkpoints than ours have lines of their own.
    """
    records = []
    for grid in grids:
        for line in grid.lines:
            names = ("method", "label", "figures", "generation")
            kinds = {True: line.figures, False: f"{line.figures}, not comparable"}
            for comparable, figures in kinds.items():
                cells = [cell if cell and cell.comparable == comparable else None
                         for cell in line.cells]  # fmt: skip
                if not any(cells):
                    continue
                record = {name: getattr(line, name) for name in names} | {"figures": figures}
                for (backbone, suite, _), cell in zip(grid.columns, cells, strict=True):
                    for name in ("absolute", "normalized"):
                        value = getattr(cell, name, None)
                        record[f"{name}_{backbone}_{suite}"] = "" if value is None else value
                records.append(record)
    return to_csv(records)


def _label(line: Line) -> str:
    return line.label if line.figures == "ours" else f"  {line.figures} ({line.generation})"


def _text(line: Line, cell: Cell | None) -> str:
    if cell is None:
        return "-"
    sign = "+z" if line.figures == "difference" else ""  # z: no minus before a zero
    texts = [
        "-" if value is None else f"{100 * value:{sign}.{cell.digits}f}"
        for value in (cell.absolute, cell.normalized)
    ]
    text = f"{texts[0]} ({texts[1]})"
    return text if cell.comparable else f"[{text}]"


def _known(value: float) -> float | None:
    """Return None for nan."""
    return None if math.isnan(value) else value
