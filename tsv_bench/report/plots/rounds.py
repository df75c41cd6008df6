"""Figure of validation accuracy by round, of methods that tune and merge in turn."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tsv_bench.benchmark.runs import Run
from tsv_bench.report.plots.style import (
    GREY,
    PERCENT,
    NothingToPlot,
    clean,
    color_and_marker,
    enumerated,
    new_figure,
)
from tsv_bench.report.tables.row import Row
from tsv_bench.report.tables.table import Table
from tsv_bench.wording import suggested

NAME = "rounds"  # in the details of a Run
LINES = {  # methods whose validation accuracy is a line: its style
    "individual": (0, (1, 1.5)),
    "tsv_merge": (0, (6, 2)),
    "task_arithmetic": (0, (6, 2, 1, 2)),
}
NUM_COLUMNS = 4  # of the tasks' panels
MAX_ROWS, MAX_STEPS = 49, 1000  # that are drawn
TITLE_WIDTH = 20  # characters in a line of a panel's title
LABEL_WIDTH, SHORT = 110, 24  # characters in a line of the legend; of labels beside each other


@dataclass(frozen=True)
class Curve:
    """What one Run noted: accuracies on validation images that its method did not see."""

    run: Run
    steps: Sequence[int]  # 0 is where the first round starts
    accuracy: Mapping[str, np.ndarray]  # task -> [steps], in [0, 1]

    @property
    def mean(self) -> np.ndarray:
        return np.mean([self.accuracy[task] for task in self.run.tasks], axis=0)


def plot_rounds(table: Table) -> Figure:
    """Draw accuracy by round: the tasks' mean at the left, and a panel for each task.

    A line is a Run; lines of one colour are seeds. Raises NothingToPlot if no Run noted rounds.
    """
    curves = _curves(table)
    references = _references(table, curves)
    num_rows = max(2, math.ceil(len(table.tasks) / NUM_COLUMNS))
    labels = {label: textwrap.fill(label, LABEL_WIDTH) for label in curves}
    is_short = len(curves) < 3 and all(len(label) <= SHORT for label in labels)
    lines = (
        1 if is_short else sum(text.count("\n") + 1 for text in labels.values()) + len(references)
    )
    figure = new_figure(10.5, 0.7 + 1.6 * num_rows + 0.22 * lines)
    grid = figure.add_gridspec(num_rows, NUM_COLUMNS + 2)
    means = figure.add_subplot(grid[:, :2])
    places = [(row, column) for row in range(num_rows) for column in range(NUM_COLUMNS)]
    panels = {
        task: figure.add_subplot(grid[row, column + 2])
        for task, (row, column) in zip(table.tasks, places, strict=False)
    }
    for index, (label, of_row) in enumerate(curves.items()):
        color, marker = color_and_marker(index)
        for number, curve in enumerate(of_row):
            means.plot(
                curve.steps, curve.mean, color=color, marker=marker, markersize=4, linewidth=1.6,
                label=None if number else labels[label],
            )  # fmt: skip
            for task, axes in panels.items():
                axes.plot(curve.steps, curve.accuracy[task], color=color, linewidth=1.2)
    for row in references:
        style = {"color": GREY, "linestyle": LINES[row.method], "linewidth": 1.2}
        levels = {task: np.mean([run.val[task].accuracy for run in row.runs]) for task in panels}
        means.axhline(np.mean(list(levels.values())), label=row.label, **style)
        for task, axes in panels.items():
            axes.axhline(levels[task], **style)
    _finish(means, f"mean of {len(table.tasks)} tasks", 10)
    for task, axes in panels.items():
        _finish(axes, textwrap.fill(table.tasks[task], TITLE_WIDTH), 9)
        axes.tick_params(labelsize=8)
    means.set_xlabel("round")
    means.set_ylabel("accuracy, validation")
    ncols = 5 if is_short else 1
    figure.legend(loc="outside lower center", ncols=ncols, frameon=False, fontsize=9)
    return figure


def caption_rounds(table: Table) -> str:
    """Return the caption of `plot_rounds`."""
    curves = _curves(table)
    references = _references(table, curves)
    text = (
        "Accuracy on validation images after each round of tuning and merging, the mean of the "
        "tasks (left) and each task; round 0 is where the first starts. One line a Run: nothing is "
        "chosen by these accuracies. "
    )
    if any(curve.run.seen.split == "val" for of_row in curves.values() for curve in of_row):
        text += "A method that sees validation images is evaluated on the others. "
    if references:
        names = enumerated([row.label for row in references])
        text += (
            f"Grey lines: {names}, on all validation images, by which their alpha was chosen if it "
            f"was searched; means of the same seeds. "
        )
    missing = set(LINES) - {row.method for row in references}
    if missing:
        text += f"No line of {enumerated(sorted(missing))}: no such Run with validation here. "
    return text.strip()


def _finish(axes: Axes, title: str, size: int) -> None:
    axes.set_title(title, fontsize=size, loc="left")
    axes.yaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    clean(axes)


def _curves(table: Table) -> dict[str, list[Curve]]:
    """Return the curves of each row, by its label. Raises NothingToPlot if there are none."""
    found: dict[str, list[Curve]] = {}
    for row in table.rows:
        curves = [curve for run in row.runs if (curve := curve_of(run))]
        if curves and len(found) < MAX_ROWS:
            found[row.label] = curves
    if not found:
        raise NothingToPlot(
            "no Run here noted its accuracy by round. Make one with: "
            + suggested.command("tsv-bench", "method=atm")
        )
    return found


def _references(table: Table, curves: Mapping[str, Sequence[Curve]]) -> list[Row]:
    """Return the rows of `LINES` that have validation accuracies of the curves' seeds."""
    seeds = {curve.run.seed for of_row in curves.values() for curve in of_row}
    rows: dict[str, Row] = {}
    for row in table.rows:
        same = [run for run in row.runs if run.seed in seeds]
        runs = tuple(run for run in same if set(run.val) >= set(run.tasks))
        if row.method in LINES and runs and row.method not in rows:
            rows[row.method] = replace(row, runs=runs)
    return [rows[method] for method in LINES if method in rows]


def curve_of(run: Run) -> Curve | None:
    """Return what a Run noted of its rounds; None if that is nothing, or nothing to be drawn.

    A Run may have been made by others: what it holds is looked at closely.
    """
    content = run.details.get(NAME)
    if not isinstance(content, Mapping) or not run.seen:
        return None
    steps, right, images = (content.get(name) for name in ("steps", "right", "images"))
    if not _are_counts(steps) or steps != sorted(set(steps)) or not 0 < len(steps) <= MAX_STEPS:
        return None
    if not isinstance(right, Mapping) or not isinstance(images, Mapping):
        return None
    accuracy = {}
    for task in run.tasks:
        total, hits = images.get(task), right.get(task)
        if not _are_counts([total]) or not _are_counts(hits) or len(hits) != len(steps):
            return None
        if total == 0 or max(hits) > total:
            return None
        accuracy[task] = np.array(hits) / total
    return Curve(run, steps, accuracy)


def _are_counts(values: Any) -> bool:
    """Return whether these are whole numbers from 0 on, small enough for a figure."""
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9
        for value in values
    )
