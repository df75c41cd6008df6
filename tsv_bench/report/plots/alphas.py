"""Figure of validation accuracy against alpha: how each method's alpha was chosen."""

import math
import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tsv_bench.report.plots.style import (
    COLORS,
    PERCENT,
    NothingToPlot,
    clean,
    color_and_marker,
    new_figure,
)
from tsv_bench.report.tables.row import Row
from tsv_bench.report.tables.table import Table

ONE_PANEL = 4  # methods at most; more get a panel each
NUM_COLUMNS = 4
TITLE_WIDTH = 26  # characters in a line of a panel's title


def plot_alphas(table: Table) -> Figure:
    """Draw a curve for each Run and mark the chosen alpha.

    Up to `ONE_PANEL` methods share a panel. Raises NothingToPlot if every method fixes its alpha.
    """
    rows = _searched(table)
    if len(rows) <= ONE_PANEL:
        return _one_panel(rows)
    num_rows = math.ceil(len(rows) / NUM_COLUMNS)
    figure = new_figure(2.3 * NUM_COLUMNS, 0.5 + 1.75 * num_rows)
    panels = figure.subplots(num_rows, NUM_COLUMNS, sharey=True, squeeze=False).ravel()
    for axes, row in zip(panels, rows, strict=False):
        _curves(axes, row, COLORS[0], "o", None, size=6)
        axes.set_title(textwrap.fill(row.label, TITLE_WIDTH), fontsize=9, loc="left")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.tick_params(labelsize=8)
        axes.yaxis.set_major_formatter(PERCENT)
        clean(axes)
    for axes in panels[len(rows) :]:
        axes.remove()
    figure.supxlabel("alpha", fontsize=10)
    figure.supylabel("normalized accuracy, validation", fontsize=10)
    return figure


def caption_alphas(table: Table) -> str:
    """Return the caption of `plot_alphas`."""
    searched = [row.label for row in _searched(table)]
    fixed = dict.fromkeys(r.runs[0].label for r in table.rows if r.label not in searched)
    text = "Mean normalized accuracy on the validation splits against alpha, one line a Run; the "
    text += "marker is the alpha that was chosen, and evaluated on test."
    return text + (f" With a fixed alpha, hence not here: {', '.join(fixed)}." if fixed else "")


def _searched(table: Table) -> list[Row]:
    """Return the rows that searched alpha. Raises NothingToPlot if there are none."""
    rows = [row for row in table.rows if any(run.alpha_curve for run in row.runs)]
    if not rows:
        raise NothingToPlot(f"no method on {table.suite} searched alpha: there is no curve.")
    return rows


def _one_panel(rows: list[Row]) -> Figure:
    figure = new_figure(6.4, 3.9)
    axes = figure.add_subplot()
    for index, row in enumerate(rows):
        _curves(axes, row, *color_and_marker(index), row.label)
    axes.set_xlabel("alpha")
    axes.set_ylabel("normalized accuracy, validation")
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_xlim(left=0)
    clean(axes)
    axes.legend(title="marker: chosen alpha", frameon=False)
    return figure


def _curves(
    axes: Axes, row: Row, color: str, marker: str, label: str | None, size: float = 8
) -> None:
    for run in row.runs:
        if not run.alpha_curve:
            continue
        alphas, scores = np.array([(p["alpha"], p["normalized"]) for p in run.alpha_curve]).T
        axes.plot(alphas, scores, color=color, linewidth=1.5, alpha=0.8)
        chosen = scores[np.abs(alphas - run.alpha).argmin()]
        axes.plot(
            run.alpha, chosen, marker, color=color, markersize=size, label=label,
            markeredgecolor="white",
        )  # fmt: skip
        label = None
