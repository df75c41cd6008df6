"""Tables as text: markdown, csv, LaTeX, and the terminal's hundred columns.

Texts are percent; csv is data and keeps fractions. A layout is "runs", a table for each backbone
and suite with everything known of it, "leaderboard", the same by accuracy and with what each method
takes, or "paper", one table with all of them side by side.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from tsv_bench.cells import (
    PUBLISHED,
    accuracies,
    as_printed,
    bounds,
    made_of,
    signed,
    summary,
)
from tsv_bench.leaderboard import leaderboard_csv, leaderboard_sheet
from tsv_bench.paper_layout import blocks, build_grids, paper_csv, paper_sheet
from tsv_bench.plots import save_figures
from tsv_bench.records import row_record, to_csv
from tsv_bench.sheets import Sheet, align, latex, markdown, notes, terminal, wrap, wrap_label
from tsv_bench.tables import Comparison, Table

LAYOUTS = {"runs": "table", "paper": "paper", "leaderboard": "leaderboard"}  # and their files
HEADER = ("method", "absolute", "normalized", "alpha", "sec")
MIN_TASK_WIDTH = 5  # as wide as "100.0"
TASKS_A_BLOCK = 8


def write_report(tables: Sequence[Table], out_folder: Path, layout: str = "runs") -> list[Path]:
    """Write the tables as .md, .csv and .tex, and each one's figures (svg, png); the paths.

    ``layout`` "runs": table.*, a table for each backbone and suite; "paper": paper.*, the paper's;
    "leaderboard": leaderboard.*, the best method first.
    """
    out_folder = Path(out_folder)
    renderings = {"md": render_markdown, "csv": render_csv, "tex": render_latex}
    texts = {end: render(tables, layout) for end, render in renderings.items()}
    out_folder.mkdir(parents=True, exist_ok=True)
    paths = [out_folder / f"{LAYOUTS[layout]}.{end}" for end in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8", newline="")
    return [*paths, *save_figures(tables, out_folder)]


def make_sheets(tables: Sequence[Table], layout: str = "runs") -> list[Sheet]:
    """The tables as texts. ValueError for a layout that there is not."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is unknown; there are: {', '.join(LAYOUTS)}.")
    if layout == "paper":
        return [paper_sheet(grid) for grid in build_grids(tables)]
    if layout == "leaderboard":
        return [leaderboard_sheet(table) for table in tables]
    return [_sheet(table) for table in tables]


def _sheet(table: Table) -> Sheet:
    columns = HEADER
    if table.has_published:
        columns = ("method", "absolute", *PUBLISHED, "normalized", *PUBLISHED, *HEADER[3:])
    return Sheet(
        title=_title(table),
        caption=_provenance(table),
        header=[*columns, *table.tasks.values()],
        rows=[[*summary(row, table.has_published), *accuracies(row)] for row in table.rows],
        notes=[*map(_compared, table.comparisons), *table.notes, *table.published_notes],
    )


def render_markdown(tables: Sequence[Table], layout: str = "runs") -> str:
    return "\n\n".join(markdown(sheet) for sheet in make_sheets(tables, layout)) + "\n"


def render_latex(tables: Sequence[Table], layout: str = "runs") -> str:
    r"""Table environments, to be read by \input."""
    parts = [latex(sheet) for sheet in make_sheets(tables, layout)]
    return "\n\n".join([r"% needs \usepackage{booktabs,graphicx}", *parts]) + "\n"


def render_terminal(tables: Sequence[Table], width: int = 100, layout: str = "runs") -> str:
    """No line is longer than ``width``; what does not fit beside stands in blocks below."""
    if layout == "runs":
        parts = [_terminal_parts(table, width) for table in tables]
    elif layout == "paper":
        parts = [_paper_parts(sheet, width) for sheet in make_sheets(tables, layout)]
    else:
        parts = [[terminal(sheet, width)] for sheet in make_sheets(tables, layout)]
    return "\n\n\n".join("\n\n".join(part) for part in parts) + "\n"


def _terminal_parts(table: Table, width: int) -> list[str]:
    parts = [f"{_title(table)}\n{wrap(_provenance(table), width)}", *_blocks(table, width)]
    if table.has_published:
        parts.append(_published_block(table))
    if table.comparisons:
        parts.append("\n".join(wrap(_compared(c), width) for c in table.comparisons))
    return [*parts, *notes([*table.notes, *table.published_notes], width)]


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


def _blocks(table: Table, width: int) -> list[str]:
    """The table as aligned text: one block when every task fits beside the summary."""
    left = [[wrap_label(row[0]), *row[1:]] for row in [HEADER, *map(summary, table.rows)]]
    methods = [row[0] for row in left]
    labels = list(table.tasks.values())
    numbers = [accuracies(row) for row in table.rows]
    # The longest headers that fit, if need be cut: one block first, then as many as it takes.
    attempts = [(left, len(labels), 1, [])]
    num_blocks = math.ceil(len(labels) / TASKS_A_BLOCK)
    per_block = math.ceil(len(labels) / num_blocks)
    attempts.append(([[m] for m in methods], per_block, 2, [align(left, gap=2)]))
    for first, count, gap, before in attempts:
        for longest in range(max(MIN_TASK_WIDTH, *map(len, labels)), MIN_TASK_WIDTH - 1, -1):
            short = shorten(labels, longest)
            right = [short, *numbers]
            blocks = list(before)
            for start in range(0, len(labels), count):
                rows = zip(first, right, strict=True)
                blocks.append(align([f + r[start : start + count] for f, r in rows], gap))
            if max(len(line) for block in blocks for line in block.split("\n")) <= width:
                pairs = zip(short, labels, strict=True)
                legend = ", ".join(f"{s} = {label}" for s, label in pairs if s != label)
                return [*blocks, wrap(legend, width)] if legend else blocks
    raise ValueError(f"the table does not fit {width} columns; read table.md instead.")


def shorten(labels: Sequence[str], width: int) -> list[str]:
    """Labels cut to ``width``; where two would become one, CIFAR10 is CIF~1 and CIFAR100 CIF~2."""
    cut = [label[:width] for label in labels]
    short = []
    for i, text in enumerate(cut):
        number = f"~{cut[: i + 1].count(text)}"
        short.append(text if cut.count(text) == 1 else text[: width - len(number)] + number)
    return short


def _published_block(table: Table) -> str:
    """Published figures and our differences from them; what is in brackets is not comparable."""
    rows = [["published", "absolute", "difference", "normalized", "difference", "checkpoints"]]
    for row in table.rows:
        cells = []
        for name in ("absolute", "normalized"):
            text = as_printed(row.published, name) if row.published else "-"
            found = row.differences.get(name)
            cells.append(text if row.comparable or text == "-" else f"[{text}]")
            cells.append("-" if found is None else signed(found))
        rows.append([wrap_label(row.label), *cells, getattr(row.published, "generation", "-")])
    return align(rows, gap=2)


def _compared(comparison: Comparison) -> str:
    """'TSV-M - Task Arithmetic: +2.9 [2.1, 3.7] over images, [1.4, 4.4] over 3 seeds'"""
    estimate = comparison.estimate
    sign = "+" if comparison.kind == "difference" else ""
    parts = [f"{100 * estimate.value:{sign}.1f} {bounds(estimate.images)} over images"]
    if estimate.seeds:
        parts.append(f"{bounds(estimate.seeds)} over {comparison.num_seeds} seeds")
    return f"{comparison.text}: {', '.join(parts)}"


def _title(table: Table) -> str:
    return f"{table.backbone} on {table.suite}, {len(table.tasks)} tasks"


def _provenance(table: Table) -> str:
    return f"Percent, 95% intervals over {table.num_images:,} test images; {made_of(table.runs)}"
