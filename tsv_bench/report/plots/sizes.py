"""Figure of accuracy against the bytes that a method stores."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import Bbox

from tsv_bench.report.plots.labels import FONT_SIZE, Point, label_column, label_others
from tsv_bench.report.plots.ranks import round_numbers
from tsv_bench.report.plots.style import COLORS, GREY, PERCENT, NothingToPlot, clean, new_figure
from tsv_bench.report.tables.rank_curves import KNOB, RankCurve, rank_curves
from tsv_bench.report.tables.row import Row
from tsv_bench.report.tables.table import Table

# What tasks are served -> label, color, marker
KINDS = {
    "one": ("one model for all tasks", COLORS[0], "o"),
    "routed": ("router chooses", COLORS[2], "D"),
    "own": ("task known at inference", COLORS[1], "s"),
}
INCH_PER_CHARACTER = 0.07  # in the labels' font
ALIKE = 1.02  # ratio of sizes that count as one, so that their labels share a column


def plot_sizes(table: Table) -> Figure:
    """Draw mean accuracy against megabytes a task, every method labelled.

    Raises NothingToPlot if no Run says what it stores.
    """
    rows, nothing_stored, _ = _sized(table)
    sizes = {id(row): row.stored_per_task / 1e6 for row in rows}
    column = _largest_group(rows, sizes)
    others = [row for row in rows if row not in column]
    figure = new_figure(7.6, max(4.2, 1.6 + 0.18 * len(column)))
    axes = figure.add_subplot()
    for served, (label, color, marker) in KINDS.items():
        of_kind = [row for row in rows if row.served == served]
        if not of_kind:
            continue
        axes.plot(
            [sizes[id(row)] for row in of_kind], [row.absolute.value for row in of_kind], marker,
            color=color, markersize=6, markeredgecolor="white", label=label,
        )  # fmt: skip
    for row in nothing_stored:
        axes.axhline(
            row.absolute.value, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)),
            label=f"{row.label}, nothing stored",
        )  # fmt: skip
    _scale(axes, sizes, column, others)
    axes.set_xlabel("stored MB a task, beside the pretrained backbone")
    axes.set_ylabel(f"accuracy, mean of {len(table.tasks)} tasks")
    axes.yaxis.set_major_formatter(PERCENT)
    clean(axes)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    places = {id(row): (sizes[id(row)], row.absolute.value, _name(row, rows)) for row in rows}
    _label(axes, [places[id(row)] for row in column], [places[id(row)] for row in others])
    return figure


def caption_sizes(table: Table) -> str:
    """Return the caption of `plot_sizes`."""
    rows, nothing_stored, curves = _sized(table)
    text = (
        "Mean accuracy against what is stored for a task beside the pretrained backbone: all that "
        "is stored over the number of tasks."
    )
    for curve in curves:
        text += f" {curve.label} stands for all its rank fractions, of which there is a curve."
    missing = [row.label for row in table.rows if row.stored_per_task is None]
    return text + (f" Of unknown size: {', '.join(missing)}." if missing else "")


def _sized(table: Table) -> tuple[list[Row], list[Row], list[RankCurve]]:
    """Return the rows with a size, the rows of size zero, and the rank curves.

    A log axis cannot show size zero. Only one row of each rank curve is among the rows with a
    size. Raises NothingToPlot if no row has a size.
    """
    known = [row for row in table.rows if row.stored_per_task is not None]
    nothing = [row for row in known if row.stored_per_task == 0]
    curves = rank_curves(table)
    hidden = [row for curve in curves for row in curve.rows if row is not _typical(curve)]
    shown = {id(row) for row in [*nothing, *hidden]}
    stored = [row for row in known if id(row) not in shown]
    if not stored:
        raise NothingToPlot(
            f"no Run on {table.suite} says how many bytes its method stores; Runs that are made "
            f"now do (overwrite=true makes them again)."
        )
    return stored, nothing, curves


def _typical(curve: RankCurve) -> Row:
    """Return the row of the default fraction, or of the largest if that was not run."""
    return next((r for r in curve.rows if r.runs[0].knobs[KNOB] is None), curve.rows[-1])


def _name(row: Row, rows: list[Row]) -> str:
    """Return a row's label, without knobs if no other row here is of the same method."""
    same = [other for other in rows if other.method == row.method]
    return row.label if len(same) > 1 else row.runs[0].label


def _largest_group(rows: list[Row], sizes: dict[int, float]) -> list[Row]:
    """Return the rows of the most common size, which stand above each other."""
    groups = [
        [row for row in rows if 1 <= sizes[id(row)] / sizes[id(first)] <= ALIKE] for first in rows
    ]
    return max(groups, key=len)


def _scale(axes: Axes, sizes: dict[int, float], column: list[Row], others: list[Row]) -> None:
    """Make the axis of sizes logarithmic, with room for the labels at both ends."""
    smallest, largest = min(sizes.values()), max(sizes.values())
    width = axes.figure.get_figwidth() - 1
    left = max(len(row.label) for row in column) * INCH_PER_CHARACTER + 0.5
    right = max((len(row.label) for row in others), default=0) * INCH_PER_CHARACTER + 0.25
    decades = max(math.log10(largest / smallest), 0.3)
    per_inch = decades / max(width - left - right, 1)
    axes.set_xscale("log")
    axes.set_xlim(smallest / 10 ** (left * per_inch), largest * 10 ** (right * per_inch))
    axes.xaxis.set_major_locator(FixedLocator(round_numbers(smallest, largest)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")


def _label(axes: Axes, column: list[Point], others: list[Point]) -> None:
    """Label the points of the common size, then the others where there is room."""
    axes.margins(y=0.06)
    axes.figure.draw_without_rendering()  # the labels are placed in the layout that this makes
    labels = label_column(axes, column)
    renderer = axes.figure.canvas.get_renderer()
    occupied = [label.get_window_extent(renderer) for label in labels]
    half = FONT_SIZE * axes.figure.dpi / 72 / 2
    for x, y in (axes.transData.transform(place[:2]) for place in [*column, *others]):
        occupied.append(Bbox([[x - half, y - half], [x + half, y + half]]))
    label_others(axes, others, occupied)
