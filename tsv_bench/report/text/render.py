"""Tables as text: markdown, csv, LaTeX, and the terminal's hundred columns.

Texts are percent; csv is data and keeps fractions. A layout is "runs", a table for each backbone
and suite with everything known of it, "leaderboard", the same by accuracy and with what each method
takes, or "paper", one table with all of them side by side.
"""

from collections.abc import Sequence

from tsv_bench.columns import align
from tsv_bench.report.tables.table import Table
from tsv_bench.report.text.csv_records import row_record, to_csv
from tsv_bench.report.text.leaderboard import leaderboard_csv, leaderboard_sheet
from tsv_bench.report.text.paper import blocks, build_grids, paper_csv, paper_sheet
from tsv_bench.report.text.runs import runs_parts, runs_sheet
from tsv_bench.report.text.sheet import Sheet, latex, markdown, notes, terminal, wrap, wrap_label

LAYOUTS = {"runs": "table", "paper": "paper", "leaderboard": "leaderboard"}  # and their files


def make_sheets(tables: Sequence[Table], layout: str = "runs") -> list[Sheet]:
    """The tables as texts. ValueError for a layout that there is not."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is unknown; there are: {', '.join(LAYOUTS)}.")
    if layout == "paper":
        return [paper_sheet(grid) for grid in build_grids(tables)]
    if layout == "leaderboard":
        return [leaderboard_sheet(table) for table in tables]
    return [runs_sheet(table) for table in tables]


def render_markdown(tables: Sequence[Table], layout: str = "runs") -> str:
    return "\n\n".join(markdown(sheet) for sheet in make_sheets(tables, layout)) + "\n"


def render_latex(tables: Sequence[Table], layout: str = "runs") -> str:
    r"""Table environments, to be read by \input."""
    parts = [latex(sheet) for sheet in make_sheets(tables, layout)]
    return "\n\n".join([r"% needs \usepackage{booktabs,graphicx}", *parts]) + "\n"


def render_terminal(tables: Sequence[Table], width: int = 100, layout: str = "runs") -> str:
    """No line is longer than ``width``; what does not fit beside stands in blocks below."""
    if layout == "runs":
        parts = [runs_parts(table, width) for table in tables]
    elif layout == "paper":
        parts = [_paper_parts(sheet, width) for sheet in make_sheets(tables, layout)]
    else:
        parts = [[terminal(sheet, width)] for sheet in make_sheets(tables, layout)]
    return "\n\n\n".join("\n\n".join(part) for part in parts) + "\n"


def _paper_parts(sheet: Sheet, width: int) -> list[str]:
    parts = [f"{sheet.title}\n{wrap(sheet.caption, width)}"]
    for rows in blocks(sheet):
        parts.append(align([[wrap_label(row[0]), *row[1:]] for row in rows], gap=2))
    return [*parts, *notes(sheet.notes, width)]


def render_csv(tables: Sequence[Table], layout: str = "runs") -> str:
    """A line a row, full precision; accuracies, differences of none, in [0, 1]."""
    if layout == "paper":
        return paper_csv(build_grids(tables))
    if layout == "leaderboard":
        return leaderboard_csv(tables)
    return to_csv([row_record(table, row) for table in tables for row in table.rows])
