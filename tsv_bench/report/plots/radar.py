"""Radar chart: accuracy on every task, around a circle, of a few methods."""

from collections.abc import Iterable

import numpy as np
from matplotlib.figure import Figure

from tsv_bench.report.plots.style import (
    GREY,
    LIGHT,
    PERCENT,
    NothingToPlot,
    color_and_marker,
    enumerated,
    new_figure,
)
from tsv_bench.report.tables.row import Row
from tsv_bench.report.tables.table import Table

NUM_BEST = 3  # methods that merge into one model, besides Task Arithmetic
MIN_TASKS = 3
REFERENCE_LINES = {"zero_shot": (0, (1, 2)), "individual": (0, (5, 2))}
ALWAYS = (*REFERENCE_LINES, "task_arithmetic")  # shown whatever their accuracy


def plot_radar(table: Table) -> Figure:
    """Draw the references, Task Arithmetic and the best merges; more would not be legible.

    Raises NothingToPlot if there are fewer than `MIN_TASKS` tasks.
    """
    rows = _chosen(table)
    angles = 2 * np.pi * np.arange(len(table.tasks)) / len(table.tasks)
    closed = np.append(angles, angles[0])
    figure = new_figure(5.6, 5.6)
    axes = figure.add_subplot(projection="polar")
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    number = 0
    for row in rows:
        values = list(row.accuracy.values())
        label = f"{row.label} {100 * row.absolute.value:.1f}"
        if row.method in REFERENCE_LINES:
            style = {"color": GREY, "linestyle": REFERENCE_LINES[row.method], "linewidth": 1.3}
        else:
            color, marker = color_and_marker(number)
            style = {"color": color, "marker": marker, "markersize": 4, "linewidth": 1.5}
            number += 1
        axes.plot(closed, [*values, values[0]], label=label, **style)
    low, _ = _radii(rows)
    axes.set_ylim(low, 1)
    ticks = np.arange(low, 1.01, 0.1 if low > 0.5 else 0.2)
    axes.set_yticks(ticks[1:], [""] * (len(ticks) - 1))
    for radius in ticks[(ticks > low) & (ticks < 0.99)]:  # above the lines, between tasks
        axes.text(
            angles[1] / 2, radius, PERCENT(radius), fontsize=7, color=GREY, ha="center",
            va="center", zorder=3,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8},
        )  # fmt: skip
    axes.set_xticks(angles, [""] * len(angles))
    for angle, label in zip(angles, table.tasks.values(), strict=True):
        side = round(float(np.sin(angle)), 3)
        axes.text(
            angle, 1 + 0.06 * (1 - low), label, fontsize=9 if len(angles) <= 14 else 8,
            ha="left" if side > 0 else "right" if side < 0 else "center", va="center",
        )  # fmt: skip
    axes.grid(color=LIGHT)
    axes.spines["polar"].set_color(LIGHT)
    figure.legend(
        loc="outside lower center", ncols=2, frameon=False, fontsize=9,
        title="mean accuracy", title_fontsize=9,
    )  # fmt: skip
    return figure


def caption_radar(table: Table) -> str:
    """Return the caption of `plot_radar`."""
    rows = _chosen(table)
    low, starts = _radii(rows)
    shown = [row.label for row in rows]
    text = f"Accuracy on every task of {enumerated(shown)}; the axis {starts}."
    if left := len({row.method for row in table.rows} - {row.method for row in rows}):
        best = f"{NUM_BEST} best"
        if None not in [row.served for row in table.rows]:
            best += " that merge into one model"
        text += (
            f" Not shown: {left} other method{'s' if left > 1 else ''}; beside the references and "
            f"Task Arithmetic these are the {best}."
        )
    return text


def _chosen(table: Table) -> list[Row]:
    """Return the rows to draw by increasing accuracy. Raises NothingToPlot for too few tasks."""
    if len(table.tasks) < MIN_TASKS:
        raise NothingToPlot(f"{table.suite} has {len(table.tasks)} tasks, a radar needs 3 or more.")
    always = [row for row in table.rows if row.method in ALWAYS]
    merged = [row for row in table.rows if row.served in (None, "one") and row.method not in ALWAYS]
    best = _best_of_methods(merged)
    chosen = [*always, *best]
    if not chosen:  # all methods must know the task
        chosen = _best_of_methods(table.rows)
    return sorted(chosen, key=lambda row: row.absolute.value)


def _best_of_methods(rows: Iterable[Row]) -> list[Row]:
    """Return the `NUM_BEST` best rows, each method by its best knobs."""
    by_method: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: -row.absolute.value):
        by_method.setdefault(row.method, row)
    return list(by_method.values())[:NUM_BEST]


def _radii(rows: list[Row]) -> tuple[float, str]:
    """Return the start of the axis, below all accuracies, and the caption's words for it."""
    lowest = min(min(row.accuracy.values()) for row in rows)
    low = max(0.0, np.floor(10 * (lowest - 0.05)) / 10)
    return low, f"starts at {100 * low:.0f}%, not at zero" if low else "starts at zero"
