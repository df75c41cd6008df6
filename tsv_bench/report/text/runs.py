"""The layout "runs": a table for each backbone and suite, with every task."""

import math
from collections.abc import Sequence

from tsv_bench.report.tables.table import Comparison, Table
from tsv_bench.report.text.numbers import (
    PUBLISHED_COLUMNS,
    accuracy_cells,
    as_printed,
    bounds,
    made_of,
    row_cells,
    signed,
)
from tsv_bench.report.text.sheet import LABEL_WIDTH, Sheet, notes, wrap, wrap_label
from tsv_bench.wording.columns import align, align_within, widest

NUMBERS = ("absolute", "normalized", "alpha", "sec")
UNSEEN = ("unseen", "unseen normalized")  # where some tasks were not merged
MIN_TASK_WIDTH = 5  # as wide as "100.0"
TASK_SPACE = 9  # characters that a block of tasks has for each, so that its label is readable


def runs_sheet(table: Table) -> Sheet:
    """Return a table as texts."""
    columns = header(table)
    if table.has_published:
        beside = {name: PUBLISHED_COLUMNS for name in ("absolute", "normalized")}
        columns = [text for name in columns for text in (name, *beside.get(name, ()))]
    return Sheet(
        title=table.title,
        caption=_provenance(table),
        header=[*columns, *_task_labels(table)],
        rows=[
            [
                *row_cells(row, table.has_published, table.sees_data, bool(table.unseen)),
                *accuracy_cells(row, table.unseen),
            ]
            for row in table.rows
        ],
        notes=[
            *(_compared(c, table.unit) for c in table.comparisons),
            *table.notes,
            *table.published_notes,
        ],
    )


def header(table: Table) -> list[str]:
    """Return the heads of the columns before the tasks; *data* only where a method saw some."""
    first = ["method", *(["data"] if table.sees_data else [])]
    return [*first, *NUMBERS[:2], *(UNSEEN if table.unseen else ()), *NUMBERS[2:]]


def _task_labels(table: Table) -> list[str]:
    return [*table.tasks.values(), *(f"{label} (unseen)" for label in table.unseen.values())]


def runs_parts(table: Table, width: int) -> list[str]:
    """Return a table as parts of text, none wider than ``width`` columns if that can be."""
    parts = [f"{wrap(table.title, width)}\n{wrap(_provenance(table), width)}"]
    parts += _blocks(table, width)
    if table.has_published:
        parts += align_within(_published_rows(table), 2, width)
    if table.comparisons:
        parts.append("\n".join(wrap(_compared(c, table.unit), width) for c in table.comparisons))
    return [*parts, *notes([*table.notes, *table.published_notes], width)]


def _blocks(table: Table, width: int) -> list[str]:
    """Return the table as aligned text, in one block if every task fits beside the summary.

    Otherwise the summary is the first block, and the tasks follow in blocks of their own.
    """
    rows = [row_cells(row, data=table.sees_data, unseen=bool(table.unseen)) for row in table.rows]
    left = [[wrap_label(row[0]), *row[1:]] for row in [header(table), *rows]]
    methods = [row[0] for row in left]
    labels = _task_labels(table)
    numbers = [accuracy_cells(row, table.unseen) for row in table.rows]
    # One block first, then several; in each the longest headers that fit, cut if need be.
    attempts = [(left, len(labels), 1, [])]
    most = max(1, (width - LABEL_WIDTH) // TASK_SPACE)
    num_blocks = math.ceil(len(labels) / most)
    per_block = math.ceil(len(labels) / num_blocks)
    attempts.append(([[m] for m in methods], per_block, 2, align_within(left, 2, width)))
    for first, count, gap, before in attempts:
        longest_label = min(max(MIN_TASK_WIDTH, *map(len, labels)), width)
        for longest in range(longest_label, MIN_TASK_WIDTH - 1, -1):
            short = shorten(labels, longest)
            right = [short, *numbers]
            blocks = list(before)
            for start in range(0, len(labels), count):
                rows = zip(first, right, strict=True)
                blocks.append(align([f + r[start : start + count] for f, r in rows], gap))
            pairs = zip(short, labels, strict=True)
            legend = ", ".join(f"{s} = {label}" for s, label in pairs if s != label)
            shown = [*blocks, wrap(legend, width)] if legend else blocks
            if max(map(widest, blocks)) <= width:
                return shown
    return shown  # a number alone is too wide


def shorten(labels: Sequence[str], width: int) -> list[str]:
    """Cut labels to ``width`` characters.

    Labels that would become equal get numbers: CIFAR10 is CIF~1 and CIFAR100 is CIF~2.
    """
    cut = [label[:width] for label in labels]
    short = []
    for i, text in enumerate(cut):
        number = f"~{cut[: i + 1].count(text)}"
        short.append(text if cut.count(text) == 1 else text[: width - len(number)] + number)
    return short


def _provenance(table: Table) -> str:
    counted = f"{table.num_images:,} test {table.unit}"
    text = f"Percent, 95% intervals over {counted}; {made_of(table.runs)}"
    if table.unseen:
        num = f"{len(table.tasks)} task" + ("s" if len(table.tasks) > 1 else "")
        text += (
            f" Merged, and alpha chosen, on {num}; absolute and normalized are their means. "
            f"{', '.join(table.unseen.values())}: unseen, with means of their own. The individual "
            f"models of unseen tasks are their own."
        )
    return text


def _published_rows(table: Table) -> list[list[str]]:
    """Return the published figures and our differences from them as cells, header first.

    Figures in brackets are not comparable with ours.
    """
    rows = [["published", "absolute", "difference", "normalized", "difference", "checkpoints"]]
    for row in table.rows:
        cells = []
        for name in ("absolute", "normalized"):
            text = as_printed(row.published, name) if row.published else "-"
            found = row.differences.get(name)
            cells.append(text if row.comparable or text == "-" else f"[{text}]")
            cells.append("-" if found is None else signed(found))
        rows.append([wrap_label(row.label), *cells, getattr(row.published, "origin", "-")])
    return rows


def _compared(comparison: Comparison, unit: str) -> str:
    """Return 'TSV-M - Task Arithmetic: +2.9 [2.1, 3.7] over images, [1.4, 4.4] over 3 seeds'."""
    estimate = comparison.estimate
    sign = "+" if comparison.kind == "difference" else ""
    parts = [f"{100 * estimate.value:{sign}.1f} {bounds(estimate.images)} over {unit}"]
    if estimate.seeds:
        parts.append(f"{bounds(estimate.seeds)} over {comparison.num_seeds} seeds")
    return f"{comparison.text}: {', '.join(parts)}"
