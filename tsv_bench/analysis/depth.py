"""Figure of a measure by depth: a point for each matrix of a network, a line for each kind."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from tsv_bench.report.plots.style import COLORS, GREY, clean, color_and_marker, new_figure

Records = Mapping[str, Any]
Range = tuple[float, float, float]  # low, middle, high
Value = Callable[[Records], Range]  # the measure of a matrix
Lines = dict[str, dict[int, Range]]  # kind -> depth -> value

MAX_KINDS = 14  # kinds at most that have a line each; more are one median and a band
MAX_NAMES = 12  # matrices at most that have their names below; blocks have numbers
WIDTHS = (3.4, 7)  # inches: a column, a page
LOG_FACTOR = 30  # values that differ by more than this factor get a logarithmic axis


def plot_by_depth(
    records: Records, panels: Mapping[str, Value], what: str = "kinds", from_zero: bool = True
) -> Figure:
    """Draw a row of axes for each panel (label -> measure) and a column for each stack of blocks.

    The last column has the matrices outside of any stack. ``what`` says what the lines are of,
    ``from_zero`` whether an axis starts at zero, or is logarithmic.
    """
    drawn = {label: lines_of(records, value) for label, value in panels.items()}
    stacks = next(iter(drawn.values()))  # panels differ in the values alone
    kinds = list(dict.fromkeys(kind for stack, own in stacks.items() if stack for kind in own))
    num_towers = len(stacks) - ("" in stacks)
    widths = [
        max(1 + len({depth for own in lines.values() for depth in own}), 6 * (num_towers > 1))
        for lines in stacks.values()
    ]
    width = min(max(WIDTHS[0], 1 + 0.14 * sum(widths)), WIDTHS[1])
    per_line = max(1, int((width - 0.2) / (0.45 + 0.065 * max(map(len, kinds), default=0))))
    legend_lines = math.ceil(len(kinds) / per_line) if len(kinds) <= MAX_KINDS else 1
    figure = new_figure(width, 1 + 1.4 * len(panels) + 0.16 * legend_lines)
    grid = figure.subplots(
        len(panels), len(stacks), squeeze=False, sharex="col", sharey="row", width_ratios=widths
    )
    for row, (label, lines) in zip(grid, drawn.items(), strict=True):
        row[0].set_ylabel(label)
        for axes, (stack, own) in zip(row, lines.items(), strict=True):
            _draw(axes, own, kinds if stack else [], what)
            clean(axes)
        if from_zero:
            _scale(row[0], lines)
    for axes, (stack, lines) in zip(grid[-1], stacks.items(), strict=True):
        if stack:
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
            of_stack = "\n".join(["", *stack.split(".")]) if num_towers > 1 else ""
            axes.set_xlabel(f"block{of_stack}")
        else:
            _name(axes, list(lines))
    if kinds:
        labelled = [axes.get_legend_handles_labels() for axes in grid[0]]
        handles = {text: handle for pair in labelled for handle, text in zip(*pair, strict=True)}
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", frameon=False,
            ncols=math.ceil(len(handles) / legend_lines), handlelength=1.6, columnspacing=1.2,
        )  # fmt: skip
    return figure


def lines_of(records: Records, value: Value) -> dict[str, Lines]:
    """Return stack -> kind -> depth -> mean over the matrices there.

    The stack "" has the matrices outside of blocks.
    """
    found: dict[str, dict[str, dict[int, list[Range]]]] = {}
    for layer in records["layers"]:
        for matrix in layer["matrices"]:
            kind = layer["kind"] + (f" {matrix['piece']}" if matrix["piece"] else "")
            lines = found.setdefault(layer["stack"], {})
            depth = len(lines) if layer["depth"] is None else layer["depth"]
            lines.setdefault(kind, {}).setdefault(depth, []).append(value(matrix))
    outside = {"": found.pop("")} if "" in found else {}
    return {
        stack: {
            kind: {depth: tuple(np.mean(own, axis=0)) for depth, own in sorted(points.items())}
            for kind, points in lines.items()
        }
        for stack, lines in (found | outside).items()
    }


def _draw(axes: Axes, lines: Lines, kinds: Sequence[str], what: str) -> None:
    """Draw a line for each kind, or grey points for matrices outside of blocks."""
    if len(kinds) > MAX_KINDS:
        points: dict[int, list[Range]] = {}
        for own in lines.values():
            for depth, value in own.items():
                points.setdefault(depth, []).append(value)
        ranges = {
            depth: (np.min(own), np.median(np.array(own)[:, 1]), np.max(own))
            for depth, own in sorted(points.items())
        }
        _line(axes, ranges, COLORS[0], "o", f"median of {len(kinds)} {what}, and the band of all")
    elif kinds:
        for kind, points in lines.items():
            _line(axes, points, *color_and_marker(kinds.index(kind)), kind)
    else:
        for points in lines.values():
            _line(axes, points, GREY, "o", None)


def _line(
    axes: Axes, points: Mapping[int, Range], color: str, marker: str, label: str | None
) -> None:
    """Draw a line through the middles, and a band from low to high."""
    depths, (low, middle, high) = list(points), np.array(list(points.values())).T
    axes.plot(
        depths, middle, color=color, marker=marker, markersize=3.5, linewidth=1.2, label=label
    )
    if np.any(low < high):
        if len(depths) > 1:
            axes.fill_between(depths, low, high, color=color, alpha=0.18, linewidth=0)
        else:
            axes.vlines(depths, low, high, color=color, alpha=0.5, linewidth=1.2)


def _scale(axes: Axes, stacks: Mapping[str, Lines]) -> None:
    """Start the axis at zero, or make it logarithmic if the values in blocks differ much."""
    blocks = [lines for stack, lines in stacks.items() if stack] or [stacks[""]]
    values = [value[1] for lines in blocks for own in lines.values() for value in own.values()]
    if 0 < min(values) < max(values) / LOG_FACTOR:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0e}"))  # needs no mathtext
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)


def _name(axes: Axes, names: Sequence[str]) -> None:
    """Write the matrices' names below, or their number if there are too many."""
    if len(names) <= MAX_NAMES:
        texts = [name.rpartition(".")[2].replace("_", "\n") for name in names]
        axes.set_xticks(range(len(names)), texts, rotation=90)
    else:
        axes.set_xticks([])
        axes.set_xlabel(f"{len(names)} outside of blocks")
    axes.set_xlim(-0.6, len(names) - 0.4)
