"""Figure of searches: estimated against full accuracy, and the front of several objectives."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tsv_bench.benchmark.runs import Run
from tsv_bench.report.plots.style import (
    GREY,
    PERCENT,
    NothingToPlot,
    clean,
    color_and_marker,
    new_figure,
)
from tsv_bench.report.tables.table import Table
from tsv_bench.wording import suggested
from tsv_bench.wording.escaping import visible

NAME = "merge3"  # in the details of a Run
MAX_ROWS, MAX_POINTS = 49, 10_000  # that are drawn
MAX_FRONTS = 2  # panels
LENGTH = 34  # characters of an objective's name


@dataclass(frozen=True)
class Found:
    """What one Run noted of its search."""

    estimate: np.ndarray  # of the last generation's candidates, means over tasks
    accuracy: np.ndarray  # on all images that the method saw
    objectives: Sequence[str]  # names
    asked: np.ndarray  # [candidates, objectives], if there are several
    front: np.ndarray

    @property
    def error(self) -> float:
        return float(np.abs(self.estimate - self.accuracy).mean())


def plot_searches(table: Table) -> Figure:
    """Draw a point for each candidate of a Run's last generation, and fronts beside.

    Points of one colour are a row's, of all its seeds. Raises NothingToPlot if no Run searched.
    """
    rows = _rows(table)
    fronts = _fronts(rows)
    figure = new_figure(5.2 + 4.2 * len(fronts), 4.6)
    axes, *panels = figure.subplots(1, 1 + len(fronts), squeeze=False)[0]
    points = [found for of_row in rows.values() for found in of_row if found.estimate.size]
    for index, (label, of_row) in enumerate(rows.items()):
        color, marker = color_and_marker(index)
        x = np.concatenate([found.estimate for found in of_row])
        y = np.concatenate([found.accuracy for found in of_row])
        if not x.size:
            continue
        error = 100 * np.mean([found.error for found in of_row if found.estimate.size])
        axes.plot(
            x, y, marker, color=color, markersize=6, markeredgecolor="white",
            label=textwrap.fill(f"{label}: off by {error:.1f}", 60),
        )  # fmt: skip
    if points:
        both = np.concatenate([np.append(found.estimate, found.accuracy) for found in points])
        ends = [both.min() - 0.01, both.max() + 0.01]
        axes.plot(ends, ends, color=GREY, linewidth=1, linestyle=(0, (4, 2)), zorder=0)
        # Below: over the points it would hide some.
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside lower left", frameon=False, fontsize=9
        )
    axes.set_title("last generation, mean of tasks", fontsize=10, loc="left")
    axes.set_xlabel("estimated accuracy")
    axes.set_ylabel("accuracy on all images seen")
    axes.xaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.locator_params(nbins=6)
    clean(axes)
    for panel, (label, found) in zip(panels, fronts, strict=True):
        _draw_front(panel, label, found)
    return figure


def caption_searches(table: Table) -> str:
    """Return the caption of `plot_searches`."""
    rows = _rows(table)
    text = (
        "Candidates of the last generation of a search: the accuracy that was estimated from a few "
        "images of each task, against that on all images that the method saw. Nothing is chosen by "
        "the latter but among the best three. Off by: the mean distance, in points."
    )
    if _fronts(rows):
        text += (
            " Right: all candidates (grey) by the estimates of two objectives, and the front "
            "(blue), which no other candidate dominates; of three objectives the first two."
        )
    return text


def _draw_front(axes: Axes, label: str, found: Found) -> None:
    axes.plot(*found.asked[:, :2].T, ".", color=GREY, alpha=0.5, markersize=5)
    front = found.front[np.argsort(found.front[:, 0], kind="stable")]
    axes.plot(
        *front[:, :2].T, "o", color=color_and_marker(0)[0], markersize=6, markeredgecolor="white"
    )
    axes.set_title(textwrap.fill(label, 44), fontsize=10, loc="left")
    axes.set_xlabel(found.objectives[0])
    axes.set_ylabel(found.objectives[1])
    axes.locator_params(nbins=6)
    clean(axes)


def _rows(table: Table) -> dict[str, list[Found]]:
    """Return what each row's Runs noted, by its label. Raises NothingToPlot if that is nothing."""
    rows: dict[str, list[Found]] = {}
    for row in table.rows:
        found = [one for run in row.runs if (one := found_of(run))]
        if found and len(rows) < MAX_ROWS:
            rows[row.label] = found
    if not rows:
        make = suggested.command("tsv-bench", "method=merge3")
        raise NothingToPlot(f"no Run here noted a search. Make one with: {make}")
    return rows


def _fronts(rows: Mapping[str, Sequence[Found]]) -> list[tuple[str, Found]]:
    """Return the first Run's front of each row that has several objectives."""
    several = [(label, found[0]) for label, found in rows.items() if len(found[0].front)]
    return several[:MAX_FRONTS]


def found_of(run: Run) -> Found | None:
    """Return what a Run noted of its search; None if that is nothing, or nothing to be drawn.

    A Run may have been made by others: what it holds is looked at closely.
    """
    content = run.details.get(NAME)
    last = content.get("last_generation") if isinstance(content, Mapping) else None
    if not isinstance(last, Mapping):
        return None
    estimate, accuracy = (_means(last.get(side), run.tasks) for side in ("estimate", "accuracy"))
    names = content.get("objectives")
    if estimate is None or accuracy is None or len(estimate) != len(accuracy):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    asked, front = (_points(content.get(part), len(names)) for part in ("asked", "front"))
    if asked is None or front is None or not (len(estimate) or len(front)):
        return None
    short = [visible(name[: LENGTH - 3] + "..." if len(name) > LENGTH else name) for name in names]
    return Found(estimate, accuracy, short, asked, front)


def _means(content: Any, tasks: Mapping[str, str]) -> np.ndarray | None:
    """Return each candidate's mean over the tasks, of accuracies by task."""
    if not isinstance(content, list) or len(content) > MAX_POINTS:
        return None
    for candidate in content:
        if not isinstance(candidate, Mapping) or set(candidate) != set(tasks):
            return None
        if not all(_is_number(value) and 0 <= value <= 1 + 1e-9 for value in candidate.values()):
            return None
    return np.array([np.mean(list(candidate.values())) for candidate in content])


def _points(content: Any, count: int) -> np.ndarray | None:
    """Return points [candidates, objectives]; none of a single objective."""
    if not isinstance(content, list) or len(content) > MAX_POINTS or not (count > 1 or not content):
        return None
    for point in content:
        if not isinstance(point, list) or len(point) != count:
            return None
        if not all(_is_number(value) and abs(value) <= 100 for value in point):
            return None
    return np.array(content, dtype=float).reshape(len(content), count)


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
