"""Figure of how a method has weighted blocks: similarity and weight by depth, a line a task."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from tsv_bench.analysis.depth import Range, Value, plot_by_depth
from tsv_bench.analysis.figures import TEXT
from tsv_bench.files import replace_atomically
from tsv_bench.methods.entrywise.lata_published import Weighting
from tsv_bench.report.plots.style import NothingToPlot, png_bytes, svg_bytes
from tsv_bench.task_vectors.places import place_of

PANELS = {"similarity": "similarity to the\ninstruction vector", "weight": "weight"}


def plot_weighting(weighting: Weighting) -> Figure:
    """Draw similarities above and weights below. Raises NothingToPlot if there is no block."""
    layers = list(layers_of(weighting))
    if not layers:
        raise NothingToPlot("no block was weighted.")

    def value_of(key: str) -> Value:
        return lambda matrix: matrix[key]

    panels = {label: value_of(key) for key, label in PANELS.items()}
    figure = plot_by_depth({"layers": layers}, panels, what="tasks", from_zero=False)
    for axes in figure.axes:
        axes.ticklabel_format(axis="y", useOffset=False)
    return figure


def layers_of(weighting: Weighting) -> Iterator[dict[str, Any]]:
    """Yield every block of every task: its place, and low, median and high of its tensors."""
    for task, similarities in weighting.similarities.items():
        units: dict[tuple[str, int], list[str]] = {}
        for unit in similarities:
            place = place_of(f"{unit}.")  # the name of a block ends in its number
            units.setdefault((place.stack, place.depth), []).append(unit)
        for (stack, depth), own in units.items():
            values = {
                "piece": "",
                "similarity": spread(similarities[unit] for unit in own),
                "weight": spread(weighting.weights[task][unit] for unit in own),
            }
            yield {"stack": stack, "depth": depth, "kind": task, "matrices": [values]}


def spread(values: Iterable[float]) -> Range:
    """Return the lowest, the median and the highest value."""
    return tuple(map(float, np.quantile(list(values), [0, 0.5, 1])))


def save(weighting: Weighting, path: Path) -> str:
    """Write the figure as svg or png, as the path ends; return a sentence on where it is.

    The sentence says instead why there is none, where there is nothing to plot.
    """
    try:
        with rc_context(TEXT):
            figure = plot_weighting(weighting)
            content = svg_bytes(figure) if path.suffix == ".svg" else png_bytes(figure)
    except NothingToPlot as nothing:
        return f"No figure: {nothing}"
    replace_atomically(path, lambda temporary: temporary.write_bytes(content))
    return f"figure of {len(weighting.weights)} tasks' blocks -> {path}"
