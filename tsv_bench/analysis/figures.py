"""Figures of an analysis, drawn from the content of its json.

They are as wide as a column or a page, so that a paper need not shrink them.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from tsv_bench.analysis.depth import Range, Records, Value, plot_by_depth
from tsv_bench.analysis.figure_files import CAPTIONS
from tsv_bench.report.plots.style import COLORS, GREY, NothingToPlot, clean, new_figure, save_figure

TEXT = {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7.5}  # points
NUMBERS_UP_TO = 10  # tasks; in a heat map of more, numbers would not be legible


def plot_interference(records: Records) -> Figure:
    """Draw singular task interference by depth: raw above, after the polar factors below.

    Raises NothingToPlot if there is one task.
    """
    _need_tasks(records, "interference is between tasks")

    def value_of(key: str) -> Value:
        return lambda matrix: (matrix["interference"][key],) * 3

    return plot_by_depth(records, {f"STI, {key}": value_of(key) for key in ("raw", "merged")})


def plot_effective_rank(records: Records) -> Figure:
    """Draw effective rank / full rank by depth: the tasks' median, and the band of all tasks."""

    def shares(matrix: Records) -> Range:
        ranks = numbers(matrix["effective_rank"]) / matrix["full_rank"]
        return tuple(np.nanquantile(ranks, [0, 0.5, 1]))

    return plot_by_depth(records, {"effective rank,\nshare of full": shares})


def plot_energy(records: Records) -> Figure:
    """Draw cumulative energy, a panel a task: the matrices' median and the band of 80% of them."""
    shares = np.sqrt(records["energy_shares"])
    matrices = [matrix for _, matrix in matrices_of(records)]
    energy = np.array([[numbers(own) for own in matrix["energy"]] for matrix in matrices])
    kept = np.median([matrix["rank"] / matrix["full_rank"] for matrix in matrices])
    of_all = np.nanmedian(energy, axis=(0, 1))
    tasks = records["tasks"]
    columns = min(len(tasks), 4 if len(tasks) < 15 else 5)
    num_rows = math.ceil(len(tasks) / columns)
    figure = new_figure(max(0.5 + min(1.65, 6.5 / columns) * columns, 3.4), 0.7 + 1.35 * num_rows)
    grid = figure.subplots(num_rows, columns, sharex=True, sharey=True, squeeze=False)
    for index, axes in enumerate(grid.flat):
        if index >= len(tasks):
            axes.set_visible(False)
            continue
        own = energy[:, index]
        own = own[~np.isnan(own).any(axis=1)]
        axes.set_title(tasks[index])
        axes.axvline(np.sqrt(kept), color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot(shares, of_all, color=GREY, linewidth=1)
        if len(own):
            low, middle, high = np.quantile(own, [0.1, 0.5, 0.9], axis=0)
            axes.fill_between(shares, low, high, color=COLORS[0], alpha=0.25, linewidth=0)
            axes.plot(shares, middle, color=COLORS[0], linewidth=1.5)
        else:
            axes.text(0.65, 0.3, "unchanged", color=GREY, ha="center", transform=axes.transAxes)
        clean(axes)
        ticks = (0.01, 0.2, 0.5, 1)
        axes.set_xticks(np.sqrt(ticks), [f"{tick:g}" for tick in ticks])
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
    figure.supxlabel("singular values, share of the full rank", fontsize=8)
    figure.supylabel("share of energy", fontsize=8)
    return figure


def plot_cosines(records: Records) -> Figure:
    """Draw heat maps, task by task, of the cosines of subspaces and of whole task vectors.

    Raises NothingToPlot if there is one task.
    """
    _need_tasks(records, "cosines are between tasks")
    of_spaces, tasks = records["overall"]["subspace_cosine_of_tasks"], records["tasks"]
    left, right = (_apart(of_spaces[side]) for side in ("left", "right"))
    vectors = _apart(records["task_vectors"]["cosine"])
    of_both = _highest(np.stack([left, right]))
    side = min(0.9 + 0.17 * len(tasks), 2.05)
    figure = new_figure(0.9 + 3 * side, 1.2 + side)
    figure.get_layout_engine().set(wspace=0.05)
    grid = figure.subplots(1, 3, sharey=True)
    for axes, title, cosines, highest in (
        (grid[0], "left subspaces", left, of_both),
        (grid[1], "right subspaces", right, of_both),
        (grid[2], "task vectors", vectors, _highest(vectors)),
    ):
        _heat_map(axes, cosines, highest, tasks, inches=side / len(tasks))
        axes.set_title(title)
    return figure


def _apart(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Return [tasks, tasks] with nan on the diagonal, so that the scale is that of the others."""
    return np.where(np.eye(len(rows), dtype=bool), np.nan, np.array(rows, dtype=float))


def _highest(cosines: np.ndarray) -> float:
    """Return the end of the colour scale: the largest cosine, rounded up to one digit."""
    largest = float(np.abs(cosines[~np.isnan(cosines)]).max(initial=0)) or 1.0
    digit = 10.0 ** math.floor(math.log10(largest))
    return math.ceil(round(largest / digit, 6)) * digit


def _heat_map(
    axes: Axes, cosines: np.ndarray, highest: float, tasks: Sequence[str], inches: float
) -> None:
    """Draw cosines with a colour bar; ``inches`` is the side of a cell."""
    signed = bool((cosines < 0).any())
    colors, lowest = ("RdBu_r", -highest) if signed else ("Blues", 0)
    axes.set_facecolor("0.93")  # shows at nan: the diagonal, and tasks without directions
    image = axes.imshow(cosines, cmap=colors, vmin=lowest, vmax=highest)
    size = min(8, 72 * inches * 0.8)
    if len(tasks) <= NUMBERS_UP_TO:
        for (i, j), value in np.ndenumerate(cosines):
            if not np.isnan(value):
                dark = abs(value) > 0.65 * highest
                axes.text(
                    j, i, f"{value:.2f}".replace("0.", ".", 1), ha="center", va="center",
                    color="white" if dark else "black", fontsize=min(6, size),
                )  # fmt: skip
    places = range(len(tasks))
    axes.set_xticks(places, tasks, rotation=90, fontsize=size)
    axes.set_yticks(places, tasks, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, location="bottom", pad=0.03, aspect=25)
    bar.set_ticks([lowest, (lowest + highest) / 2, highest])
    bar.formatter = StrMethodFormatter("{x:.3g}")
    bar.outline.set_visible(False)


FIGURES = {
    "interference": (
        plot_interference,
        "Singular task interference of each matrix by its depth: of what the tasks keep (raw), and "
        "after the polar factors of TSV-M (merged), where only rounding is left if what the tasks "
        "keep has room side by side. A point is the mean of the matrices of its kind in a block.",
    ),
    "energy": (
        plot_energy,
        "Share of the squared norm of a task's deltas in their leading singular values: median of "
        "the matrices and the band from 10% to 90% of them; grey, the median of all tasks. The "
        "dashed line is the share that a task keeps. The horizontal axis is a square root.",
    ),
    "cosines": (
        plot_cosines,
        "Mean squared cosine of the principal angles between what two tasks keep, mean of all "
        "matrices, of left and of right singular vectors; and the cosine of whole task vectors. "
        "Random subspaces of these ranks have {random}.",
    ),
    "effective-rank": (
        plot_effective_rank,
        "Effective rank (exp of the entropy of the normalized singular values, Roy & Vetterli "
        "2007) over the full rank, of each matrix by its depth: median of the tasks, with a band "
        "from the lowest to the highest.",
    ),
}


def save_analysis(records: Records, folder: Path) -> tuple[list[Path], list[str]]:
    """Write the figures as svg and png, and their captions to figures.md.

    Returns the figures' paths, and a sentence for each that is left out.
    """
    folder, paths, left_out, texts = Path(folder), [], [], []
    for name, (plot, caption) in FIGURES.items():
        try:
            with rc_context(TEXT):
                paths += save_figure(plot(records), folder, name)
            texts.append(f"![{name}]({name}.png)\n\n{caption.format(random=_random(records))}")
        except NothingToPlot as nothing:
            left_out.append(f"No figure {name!r}: {nothing}")
    text = "\n\n".join([*texts, *left_out]) + "\n"
    (folder / CAPTIONS).write_text(text, encoding="utf-8")
    return paths, left_out


def _random(records: Records) -> str:
    """Return the cosines that random subspaces of the same sizes would have: rank / side."""
    sides = [
        np.mean([matrix["rank"] / matrix["shape"][side] for _, matrix in matrices_of(records)])
        for side in (0, 1)
    ]
    return f"about {sides[0]:.2g} and {sides[1]:.2g}"


def _need_tasks(records: Records, why: str) -> None:
    """Raise NothingToPlot if there is one task."""
    if len(records["tasks"]) < 2:
        raise NothingToPlot(f"{why}, and there is one task.")


def matrices_of(records: Records) -> Iterator[tuple[Records, Records]]:
    """Yield every matrix with its layer."""
    return ((layer, matrix) for layer in records["layers"] for matrix in layer["matrices"])


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """Return the values as an array, with nan for null."""
    return np.array(values, dtype=float)
