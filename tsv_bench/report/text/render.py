"""Tables as text: markdown, csv, LaTeX, and the terminal in as many columns as it has.

Text has percent; csv is data and keeps fractions. The layouts:

- "runs": a table for each backbone and suite, with every task; and one with every corruption, if
  images were corrupted
- "leaderboard": a table for each backbone and suite, the best method first, with its time, memory
  and storage
- "paper": one table of all backbones and suites side by side, with published figures below ours
"""

from collections.abc import Sequence

from tsv_bench.report.tables.table import Table
from tsv_bench.report.text.corrupted import corrupted_sheet
from tsv_bench.report.text.csv_records import row_record, to_csv
from tsv_bench.report.text.layouts import check_layout
from tsv_bench.report.text.leaderboard import leaderboard_csv, leaderboard_sheet
from tsv_bench.report.text.paper import blocks, build_grids, paper_csv, paper_sheet
from tsv_bench.report.text.runs import runs_parts, runs_sheet
from tsv_bench.report.text.sheet import Sheet, latex, markdown, notes, terminal, wrap, wrap_label
from tsv_bench.wording.columns import align_within


def make_sheets(tables: Sequence[Table], layout: str = "runs") -> list[Sheet]:
    """Return the sheets of a layout.

    Raises ValueError for an unknown layout.
    """
    check_layout(layout)
    if layout == "paper":
        return [paper_sheet(grid) for grid in build_grids(tables)]
    if layout == "leaderboard":
        return [leaderboard_sheet(table) for table in tables]
    pairs = [(runs_sheet(table), corrupted_sheet(table)) for table in tables]
    return [sheet for pair in pairs for sheet in pair if sheet]


def render_markdown(tables: Sequence[Table], layout: str = "runs") -> str:
    """Render tables as markdown."""
    return "\n\n".join(markdown(sheet) for sheet in make_sheets(tables, layout)) + "\n"


def render_latex(tables: Sequence[Table], layout: str = "runs") -> str:
    r"""Render tables as LaTeX, to be included by \input."""
    parts = [latex(sheet) for sheet in make_sheets(tables, layout)]
    return "\n\n".join([r"% needs \usepackage{booktabs,graphicx}", *parts]) + "\n"


def render_terminal(tables: Sequence[Table], width: int = 100, layout: str = "runs") -> str:
    """Render tables for a terminal of ``width`` columns.

    What does not fit side by side stands in blocks below each other.
    """
    if layout == "runs":
        parts = []
        for table in tables:
            parts.append(runs_parts(table, width))
            if sheet := corrupted_sheet(table):
                parts.append(_in_blocks(sheet, width))
    elif layout == "paper":
        parts = [_paper_parts(sheet, width) for sheet in make_sheets(tables, layout)]
    else:
        parts = [[terminal(sheet, width)] for sheet in make_sheets(tables, layout)]
    return "\n\n\n".join("\n\n".join(part) for part in parts) + "\n"


def _in_blocks(sheet: Sheet, width: int) -> list[str]:
    rows = [[wrap_label(row[0]), *row[1:]] for row in [sheet.header, *sheet.rows]]
    blocks = align_within(rows, 2, width)
    return [f"{wrap(sheet.title, width)}\n{wrap(sheet.caption, width)}", *blocks]


def _paper_parts(sheet: Sheet, width: int) -> list[str]:
    parts = [f"{wrap(sheet.title, width)}\n{wrap(sheet.caption, width)}"]
    for rows in blocks(sheet):
        parts += align_within([[wrap_label(row[0]), *row[1:]] for row in rows], 2, width)
    return [*parts, *notes(sheet.notes, width)]


def render_csv(tables: Sequence[Table], layout: str = "runs") -> str:
    """Render tables as csv, a line a row: fractions in full precision."""
    if layout == "paper":
        return paper_csv(build_grids(tables))
    if layout == "leaderboard":
        return leaderboard_csv(tables)
    return to_csv([row_record(table, row) for table in tables for row in table.rows])
