"""Figure of accuracy against the share of ranks that is kept, and against the bytes stored."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from tsv_bench.report.plots.style import COLORS, GREY, PERCENT, NothingToPlot, clean, new_figure
from tsv_bench.report.tables.rank_curves import SHARE, Kept, RankCurve, rank_curves
from tsv_bench.report.tables.table import Table
from tsv_bench.wording import suggested

SWEPT = "method.rank_fraction=0.01,0.02,0.05,0.1,0.2,0.5"  # a rank study


def plot_ranks(table: Table) -> Figure:
    """Draw a row of panels for each method: against the rank fraction, and against bytes a task.

    The second panel is left out if the bytes are unknown or do not depend on the fraction. Raises
    NothingToPlot if no method has Runs of two rank fractions.
    """
    curves = _curves(table)
    num_columns = 2 if any(map(_grows, curves)) else 1
    figure = new_figure(4.6 * num_columns, 3.6 * len(curves))
    panels = figure.subplots(len(curves), num_columns, sharey="row", squeeze=False)
    for (axes, *others), curve in zip(panels, curves, strict=True):
        _panel(axes, curve, curve.fractions, "share of ranks that a task keeps")
        if kept := curve.kept():
            _mark(axes, kept)
        axes.set_ylabel("accuracy")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_title(curve.label, fontsize=10, loc="left")
        for other in others:
            if _grows(curve):
                _panel(other, curve, [size / 1e6 for size in curve.sizes], "stored MB a task")
            else:
                other.remove()
    marks = {  # the legend entries of all panels
        label: handle
        for axes in panels[:, 0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        marks.values(), marks.keys(), loc="outside upper center", ncols=2 * num_columns,
        frameon=False, fontsize=9,
    )  # fmt: skip
    return figure


def _grows(curve: RankCurve) -> bool:
    """Return whether the stored bytes depend on the ranks; those of one merged model do not."""
    return bool(curve.sizes) and max(curve.sizes) > 1.01 * min(curve.sizes)


def caption_ranks(table: Table) -> str:
    """Return the caption of `plot_ranks`."""
    curves = _curves(table)
    text = (
        "Accuracy against the share of ranks that a task keeps: every task (thin), their mean with "
        "its 95% interval over images (thick), and the mean of the individual models (dashed)."
    )
    return " ".join([text, *filter(None, map(describe_kept, curves))])


def describe_kept(curve: RankCurve) -> str:
    """Return "TSV-C keeps 99% of the individual models' accuracy from 0.083 on [0.07, 0.09]."."""
    kept = curve.kept()
    if kept is None:
        return ""
    share = f"{100 * SHARE:g}% of the individual models' accuracy"
    if math.isinf(kept.fraction):
        return f"{curve.label} keeps {share} at none of these fractions."
    least = curve.fractions[0]
    bounds = ", ".join(_bound(value, least) for value in (kept.low, kept.high))
    return f"{curve.label} keeps {share} from {_bound(kept.fraction, least)} on [{bounds}]."


def _bound(fraction: float, least: float) -> str:
    if math.isinf(fraction):
        return "more than was measured"
    return f"{'at most ' if fraction <= least else ''}{fraction:.2g}"


def _curves(table: Table) -> list[RankCurve]:
    """Return the rank curves. Raises NothingToPlot if there are none."""
    if not (curves := rank_curves(table)):
        raise NothingToPlot(
            "no method has Runs that differ in rank_fraction alone. Make them with: "
            + suggested.command("tsv-bench", "--multirun", "method=tsv_compress", SWEPT)
        )
    return curves


def _panel(axes: Axes, curve: RankCurve, across: list[float], label: str) -> None:
    for index, task in enumerate(curve.rows[0].accuracy):
        of_task = [row.accuracy[task] for row in curve.rows]
        name = "a task" if index == 0 else None
        axes.plot(across, of_task, color="0.75", linewidth=0.8, label=name, zorder=1)
    if curve.individual:
        axes.axhline(
            curve.individual.absolute.value, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2,
            label="individual, mean",
        )  # fmt: skip
    means = np.array([row.absolute.value for row in curve.rows])
    intervals = [row.absolute.images for row in curve.rows]
    if all(intervals):
        low, high = np.array([(i.low, i.high) for i in intervals]).T
        axes.fill_between(across, low, high, color=COLORS[0], alpha=0.2, linewidth=0)
    axes.plot(across, means, "o-", color=COLORS[0], linewidth=1.8, markersize=5, label="mean")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(round_numbers(min(across), max(across))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(label)
    clean(axes)


def _mark(axes: Axes, kept: Kept) -> None:
    """Mark the fraction that keeps 99%, if it is among the measured ones."""
    if not math.isinf(kept.fraction):
        label = f"{100 * SHARE:g}% of individual kept"
        axes.axvline(kept.fraction, color=COLORS[1], linewidth=1.2, label=label)
        if not math.isinf(kept.high):
            axes.axvspan(kept.low, kept.high, color=COLORS[1], alpha=0.2, linewidth=0)


def round_numbers(low: float, high: float) -> list[float]:
    """Return the ticks of a log axis: 1, 2 and 5 times powers of ten.

    Over more than about two decades, only the powers.
    """
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    numbers = [step * 10.0**power for power in decades for step in steps]
    return [number for number in numbers if low / 1.1 <= number <= high * 1.1]
