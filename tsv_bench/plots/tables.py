"""Figures of a table. They belong to no window and no global state; savefig is all they need.

Colours: Okabe and Ito, which colour-blind readers tell apart; methods also differ by marker.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tsv_bench.rows import Row
from tsv_bench.tables import Table

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
GREY = "#666666"
REFERENCES = ("zero_shot", "individual")  # lines in the first figure, not rows
INCH_PER_CHARACTER = 0.085  # of the default font at 10 points
PERCENT = FuncFormatter(lambda fraction, _: f"{100 * fraction:g}%")


def plot_methods(table: Table) -> Figure:
    """Mean accuracy of every method with its 95% interval, and the two it lies between.

    With several seeds: the thick bar is over images, the thin one over seeds, the small
    dots are the seeds.
    """
    rows = [row for row in table.rows if row.method not in REFERENCES][::-1]
    references = [row for row in table.rows if row.method in REFERENCES]
    if not rows:
        rows, references = list(table.rows)[::-1], []
    label_width = max(len(row.label) for row in rows) * INCH_PER_CHARACTER
    figure = Figure(figsize=(5.6 + label_width, 1.7 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for row in references:
        _reference_line(axes, row, len(rows))
    for height, row in enumerate(rows):
        _dot(axes, row, height)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(PERCENT)
    axes.set_xlabel(f"accuracy, mean of {len(table.tasks)} tasks\n{_intervals(table)}")
    axes.margins(x=0.1)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    return figure


def plot_tasks(table: Table) -> Figure:
    """Accuracy of every method (rows) on every task (columns), written into a heat map."""
    accuracy = np.array([list(row.accuracy.values()) for row in table.rows])
    label_width = max(len(row.label) for row in table.rows) * INCH_PER_CHARACTER
    size = (label_width + 0.62 * accuracy.shape[1] + 1.2, 1.2 + 0.38 * accuracy.shape[0])
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(accuracy, cmap="Blues", vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(accuracy):
        color = "white" if image.norm(value) > 0.7 else "black"  # on the dark end of the blues
        axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color=color, fontsize=9)
    axes.set_yticks(range(len(table.rows)), [row.label for row in table.rows])
    axes.set_xticks(range(len(table.tasks)), table.tasks.values(), rotation=35, ha="right")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, format=PERCENT, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("accuracy")
    return figure


def plot_alphas(table: Table) -> Figure:
    """Validation accuracy against alpha, one line a Run; the chosen alpha is marked.

    ValueError when every method fixes its alpha.
    """
    rows = [row for row in table.rows if any(run.alpha_curve for run in row.runs)]
    if not rows:
        raise ValueError(f"no method on {table.suite} searched alpha: there is no curve to plot.")
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    axes = figure.add_subplot()
    for index, row in enumerate(rows):
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        label = row.label
        for run in row.runs:
            if not run.alpha_curve:
                continue
            alphas, scores = np.array([(p["alpha"], p["normalized"]) for p in run.alpha_curve]).T
            axes.plot(alphas, scores, color=color, linewidth=1.5, alpha=0.8)
            chosen = scores[np.abs(alphas - run.alpha).argmin()]
            axes.plot(
                run.alpha, chosen, marker, color=color, markersize=8, label=label,
                markeredgecolor="white",
            )  # fmt: skip
            label = None
    axes.set_xlabel("alpha")
    axes.set_ylabel("normalized accuracy, validation")
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_xlim(left=0)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="marker: chosen alpha", frameon=False)
    return figure


def _dot(axes: Axes, row: Row, height: float) -> None:
    estimate = row.absolute
    for interval, width in ((estimate.seeds, 1.2), (estimate.images, 4)):
        if interval:
            axes.plot(
                [interval.low, interval.high], [height, height], color=COLORS[0],
                linewidth=width, solid_capstyle="butt", alpha=1 if width == 1.2 else 0.45,
            )  # fmt: skip
    axes.plot(estimate.value, height, "o", color=COLORS[0], markersize=7)
    if len(row.runs) > 1:
        seeds = [run.absolute for run in row.runs]
        axes.plot(seeds, [height - 0.25] * len(seeds), ".", color=GREY, markersize=4)
    axes.annotate(
        f"{100 * estimate.value:.1f}", (estimate.value, height), (0, 8),
        textcoords="offset points", ha="center", fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.2},
    )  # fmt: skip


def _reference_line(axes: Axes, row: Row, num_rows: int) -> None:
    axes.axvline(row.absolute.value, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        f"{row.label} {100 * row.absolute.value:.1f}", (row.absolute.value, num_rows - 0.4), (0, 4),
        textcoords="offset points", ha="center", color=GREY, fontsize=9, annotation_clip=False,
    )  # fmt: skip


def _intervals(table: Table) -> str:
    if len(table.seeds) < 2:
        return "95% intervals over images"
    return "95% intervals: thick over images, thin over seeds; dots: seeds"
