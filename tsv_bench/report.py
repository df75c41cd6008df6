"""Tables as text: markdown, csv, and the terminal's hundred columns.

Percent appears here and nowhere before; csv is data and keeps fractions.
"""

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from tsv_bench.plots import plot_alphas, plot_methods, plot_tasks
from tsv_bench.rows import Row
from tsv_bench.statistics import Estimate, Interval
from tsv_bench.tables import Comparison, Table

HEADER = ("method", "absolute", "normalized", "alpha", "sec")
LABEL_WIDTH = 28  # longer labels of methods continue on the next line
MIN_TASK_WIDTH = 5  # as wide as "100.0"
TASKS_A_BLOCK = 8


def write_report(tables: Sequence[Table], out_folder: Path) -> list[Path]:
    """Write table.md, table.csv and, for each table, its plots (PNG); the paths written."""
    out_folder = Path(out_folder)
    out_folder.mkdir(parents=True, exist_ok=True)
    texts = {"table.md": render_markdown(tables), "table.csv": render_csv(tables)}
    for name, text in texts.items():
        (out_folder / name).write_text(text, encoding="utf-8", newline="")
    paths = [out_folder / name for name in texts]
    plots = {"methods": plot_methods, "tasks": plot_tasks, "alpha": plot_alphas}
    for table in tables:
        for name, plot in plots.items():
            if name == "alpha" and not any(run.alpha_curve for run in table.runs):
                continue
            paths.append(out_folder / f"{table.name}-{name}.png")
            plot(table).savefig(paths[-1], dpi=150)
    return paths


def render_markdown(tables: Sequence[Table]) -> str:
    parts = []
    for table in tables:
        lines = [_markdown_row([*HEADER, *table.tasks.values()])]
        lines.append("|".join(["", "-", *["-:"] * (len(HEADER) + len(table.tasks) - 1), ""]))
        lines += [_markdown_row([*_summary(row), *_accuracies(row)]) for row in table.rows]
        extra = [*(_compared(c) for c in table.comparisons), *table.notes]
        body = [f"## {_title(table)}", _provenance(table), "\n".join(lines)]
        body += ["\n".join(f"- {line}" for line in extra)] if extra else []
        parts.append("\n\n".join(body))
    return "\n\n".join(parts) + "\n"


def render_terminal(tables: Sequence[Table], width: int = 100) -> str:
    """No line is longer than ``width``; tasks that do not fit beside stand in blocks below."""
    parts = []
    for table in tables:
        body = [f"{_title(table)}\n{_wrap(_provenance(table), width)}", *_blocks(table, width)]
        if table.comparisons:
            body.append("\n".join(_wrap(_compared(c), width) for c in table.comparisons))
        if table.notes:
            body.append("\n".join(_wrap(f"note: {note}", width) for note in table.notes))
        parts.append("\n\n".join(body))
    return "\n\n\n".join(parts) + "\n"


def render_csv(tables: Sequence[Table]) -> str:
    """A line a row, full precision; accuracies, differences of none, in [0, 1].

    Alpha is the mean over seeds. Suites with other tasks leave the columns of these empty.
    """
    records = []
    for table in tables:
        for row in table.rows:
            first = {"backbone": table.backbone, "suite": table.suite, "method": row.method}
            first |= {"label": row.label, "seeds": " ".join(map(str, row.seeds))}
            for name in ("absolute", "normalized"):
                estimate: Estimate = getattr(row, name)
                first[name] = estimate.value
                for kind, interval in (("images", estimate.images), ("seeds", estimate.seeds)):
                    first[f"{name}_{kind}_low"] = interval.low if interval else ""
                    first[f"{name}_{kind}_high"] = interval.high if interval else ""
            first |= {"alpha": math.fsum(row.alphas) / len(row.alphas), "seconds": row.seconds}
            records.append(first | {f"accuracy_{t}": a for t, a in row.accuracy.items()})
    names = dict.fromkeys(name for record in records for name in record)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def _blocks(table: Table, width: int) -> list[str]:
    """The table as aligned text: one block when every task fits beside the summary."""
    summary = [list(HEADER), *(_summary(row) for row in table.rows)]
    methods = [_wrap(row[0], LABEL_WIDTH) for row in summary]
    left = [[method, *row[1:]] for method, row in zip(methods, summary, strict=True)]
    labels = list(table.tasks.values())
    accuracies = [_accuracies(row) for row in table.rows]
    # The longest headers that fit, if need be cut: one block first, then as many as it takes.
    attempts = [(left, len(labels), 1, [])]
    num_blocks = math.ceil(len(labels) / TASKS_A_BLOCK)
    per_block = math.ceil(len(labels) / num_blocks)
    attempts.append(([[m] for m in methods], per_block, 2, [_align(left, gap=2)]))
    for first, count, gap, before in attempts:
        for longest in range(max(MIN_TASK_WIDTH, *map(len, labels)), MIN_TASK_WIDTH - 1, -1):
            short = shorten(labels, longest)
            right = [short, *accuracies]
            blocks = list(before)
            for start in range(0, len(labels), count):
                rows = zip(first, right, strict=True)
                blocks.append(_align([f + r[start : start + count] for f, r in rows], gap))
            if max(len(line) for block in blocks for line in block.split("\n")) <= width:
                pairs = zip(short, labels, strict=True)
                legend = ", ".join(f"{s} = {label}" for s, label in pairs if s != label)
                return [*blocks, _wrap(legend, width)] if legend else blocks
    raise ValueError(f"the table does not fit {width} columns; read table.md instead.")


def shorten(labels: Sequence[str], width: int) -> list[str]:
    """Labels cut to ``width``; where two would become one, CIFAR10 is CIF~1 and CIFAR100 CIF~2."""
    cut = [label[:width] for label in labels]
    short = []
    for i, text in enumerate(cut):
        number = f"~{cut[: i + 1].count(text)}"
        short.append(text if cut.count(text) == 1 else text[: width - len(number)] + number)
    return short


def _align(rows: list[list[str]], gap: int) -> str:
    """Columns padded to their widest cell, numbers to the right; a cell may have more lines."""
    widths = _widths(rows)
    lines = []
    for cells in rows:
        height = max(cell.count("\n") for cell in cells) + 1
        split = [cell.split("\n") + [""] * height for cell in cells]
        for i in range(height):
            line = [split[0][i].ljust(widths[0])]
            line += [c[i].rjust(w) for c, w in zip(split[1:], widths[1:], strict=True)]
            lines.append((" " * gap).join(line).rstrip())
    return "\n".join(lines)


def _widths(rows: list[list[str]]) -> list[int]:
    columns = zip(*rows, strict=True)
    return [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]


def _summary(row: Row) -> list[str]:
    alphas = [f"{alpha:.2f}" for alpha in (min(row.alphas), max(row.alphas))]
    seconds = f"{row.seconds:.1f}" if row.seconds < 10 else f"{row.seconds:.0f}"
    estimates = [_with_interval(row.absolute), _with_interval(row.normalized)]
    return [row.label, *estimates, "-".join(dict.fromkeys(alphas)), seconds]


def _accuracies(row: Row) -> list[str]:
    return [_percent(accuracy) for accuracy in row.accuracy.values()]


def _with_interval(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "-"
    if estimate.images is None:
        return _percent(estimate.value)
    half = (estimate.images.high - estimate.images.low) / 2
    return f"{_percent(estimate.value)} ±{_percent(half)}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _compared(comparison: Comparison) -> str:
    """'TSV-M - Task Arithmetic: +2.9 [2.1, 3.7] over images, [1.4, 4.4] over 3 seeds'"""
    estimate = comparison.estimate
    sign = "+" if comparison.kind == "difference" else ""
    parts = [f"{100 * estimate.value:{sign}.1f} {_bounds(estimate.images)} over images"]
    if estimate.seeds:
        parts.append(f"{_bounds(estimate.seeds)} over {comparison.num_seeds} seeds")
    return f"{comparison.text}: {', '.join(parts)}"


def _bounds(interval: Interval) -> str:
    return f"[{_percent(interval.low)}, {_percent(interval.high)}]"


def _title(table: Table) -> str:
    return f"{table.backbone} on {table.suite}, {len(table.tasks)} tasks"


def _provenance(table: Table) -> str:
    runs = table.runs
    fine = [c for run in runs for task, c in run.checkpoints.items() if task != "pretrained"]
    many = "s" if len(table.seeds) > 1 else ""
    return (
        f"Percent, 95% intervals over {table.num_images:,} test images; fine-tuning seed{many} "
        f"{_some(table.seeds)}; commit {_some(run.commit for run in runs)}; "
        f"checkpoints: {_some(c['generation'] for c in fine)}."
    )


def _some(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values)) or "unknown"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _wrap(text: str, width: int, indent: str = "  ") -> str:
    return textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False)
