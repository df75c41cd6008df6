"""Figures of accuracies: the mean of every method, and a heat map of methods and tasks."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tsv_bench.report.plots.style import (
    COLORS,
    GREY,
    INCH_PER_CHARACTER,
    PERCENT,
    clean,
    new_figure,
)
from tsv_bench.report.tables.row import Row
from tsv_bench.report.tables.table import Table

BLOCKS = {
    "one": "One model for all tasks",
    "routed": "Router chooses",
    "own": "Task known at inference",
}


def plot_methods(table: Table) -> Figure:
    """Draw every method's mean accuracy with its 95% interval, the best first.

    Methods that must know the task stand in a block of their own; the references are lines. With
    several seeds the thick bar is over images, the thin bar over seeds, and each seed has a dot.
    """
    rows = [row for row in table.rows if not row.is_reference]
    references = [row for row in table.rows if row.is_reference]
    if not rows:
        rows, references = list(table.rows), []
    entries = _entries(rows)[::-1]  # the axis goes up
    label_width = max(len(label) for label, _ in entries) * INCH_PER_CHARACTER
    figure = new_figure(6.0 + label_width, 1.5 + 0.34 * len(entries))
    axes = figure.add_subplot()
    for row in references:
        axes.axvline(row.absolute.value, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    for height, (_, row) in enumerate(entries):
        if row:
            _dot(axes, row, height)
    ticks = axes.set_yticks(range(len(entries)), [label for label, _ in entries])
    for tick, (_, row) in zip(ticks, entries, strict=True):
        tick.label1.set_fontweight("normal" if row else "bold")
    axes.set_ylim(-0.6, len(entries) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(PERCENT)
    axes.set_xlabel(f"accuracy, mean of {len(table.tasks)} tasks")
    axes.margins(x=0.08)
    axes.tick_params(axis="y", length=0)
    clean(axes, "x")
    axes.spines["left"].set_visible(False)
    _label_references(axes, references)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    return figure


def caption_methods(table: Table) -> str:
    """Return the caption of `plot_methods`."""
    text = (
        f"Accuracy, mean of the {len(table.tasks)} tasks of {table.suite} ({table.backbone}), and "
        f"its 95% interval over test {table.unit}"
    )
    if len(table.seeds) > 1:
        text += f": thick over {table.unit}, thin over fine-tuning seeds; small dots are the seeds"
    if any(row.is_reference for row in table.rows):
        text += ". Dashed: what methods lie between"
    return f"{text}."


def plot_tasks(table: Table) -> Figure:
    """Draw a heat map of accuracies, methods down and tasks across, with the numbers in it."""
    accuracy = np.array([list(row.accuracy.values()) for row in table.rows])
    label_width = max(len(row.label) for row in table.rows) * INCH_PER_CHARACTER
    # Labels of tasks are turned by 35 degrees: inches that the longest reaches down, and left.
    reach = 0.6 * INCH_PER_CHARACTER * max(map(len, table.tasks.values()))
    width = max(label_width, 1.4 * reach) + 0.62 * accuracy.shape[1] + 1.2
    figure = new_figure(width, 0.6 + reach + 0.32 * accuracy.shape[0])
    axes = figure.add_subplot()
    image = axes.imshow(accuracy, cmap="Blues", vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(accuracy):
        color = "white" if image.norm(value) > 0.7 else "black"  # white on dark blue
        axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color=color, fontsize=9)
    axes.set_yticks(range(len(table.rows)), [row.label for row in table.rows])
    axes.set_xticks(range(len(table.tasks)), table.tasks.values(), rotation=35, ha="right")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, format=PERCENT, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("accuracy")
    return figure


def caption_tasks(table: Table) -> str:
    """Return the caption of `plot_tasks`."""
    seeds = ", mean over seeds" if len(table.seeds) > 1 else ""
    return f"Test accuracy in percent of every method on every task{seeds}."


def _entries(rows: list[Row]) -> list[tuple[str, Row | None]]:
    """Return (label, row) from the best method down, and (heading, None) before each block.

    There are no headings if all methods are in one block, or if some do not say in which.
    """
    by_value = sorted(rows, key=lambda row: -row.absolute.value)
    blocks = {served: [r for r in by_value if r.served == served] for served in BLOCKS}
    blocks = {served: block for served, block in blocks.items() if block}
    if len(blocks) < 2 or None in (row.served for row in rows):
        return [(_label(row), row) for row in by_value]
    entries: list[tuple[str, Row | None]] = []
    for served, block in blocks.items():
        entries += [(BLOCKS[served], None), *((_label(row), row) for row in block)]
    return entries


def _label(row: Row) -> str:
    """Return a row's label, with the data that its method saw."""
    return row.label if row.data_kind == "none" else f"{row.label}, sees {row.data}"


def _dot(axes: Axes, row: Row, height: float) -> None:
    """Draw a method's mean, its intervals and its seeds, and write the mean."""
    estimate = row.absolute
    for interval, width in ((estimate.seeds, 1.2), (estimate.images, 4)):
        if interval:
            axes.plot(
                [interval.low, interval.high], [height, height], color=COLORS[0],
                linewidth=width, solid_capstyle="butt", alpha=1 if width == 1.2 else 0.45,
            )  # fmt: skip
    axes.plot(estimate.value, height, "o", color=COLORS[0], markersize=6)
    if len(row.runs) > 1:
        seeds = [run.absolute for run in row.runs]
        axes.plot(seeds, [height - 0.3] * len(seeds), ".", color=GREY, markersize=3)
    axes.text(  # in a column at the right, clear of bars and lines
        1.01, height, f"{100 * estimate.value:.1f}", transform=axes.get_yaxis_transform(),
        va="center", fontsize=9,
    )  # fmt: skip


def _label_references(axes: Axes, references: list[Row]) -> None:
    """Label the references above their lines, side by side if the lines are close."""
    references = sorted(references, key=lambda row: row.absolute.value)
    values = [row.absolute.value for row in references]
    low, high = axes.get_xlim()
    close = len(values) == 2 and values[1] - values[0] < 0.3 * (high - low)
    for index, row in enumerate(references):
        side = ("right", "left")[index] if close else "center"
        axes.annotate(
            f"{row.label} {100 * row.absolute.value:.1f}", (row.absolute.value, 1), (0, 4),
            xycoords=axes.get_xaxis_transform(), textcoords="offset points", ha=side, color=GREY,
            fontsize=9, annotation_clip=False,
        )  # fmt: skip
