"""Figures: the numbers drawn are the table's, and every text is inside and apart."""

import itertools
import sys

import numpy as np
import pytest
from made_up_runs import LABELS, TASKS, make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tsv_bench.plots import plot_alphas, plot_methods, plot_tasks
from tsv_bench.tables import build_tables

PLOTS = [plot_methods, plot_tasks, plot_alphas]


def table_of(methods=tuple(LABELS), seeds=(0,), num_tasks=8):
    tasks = [f"{task}{i or ''}" for i in range(3) for task in TASKS][:num_tasks]
    runs = [make_run(method, seed, tasks=tasks) for method in methods for seed in seeds]
    (table,) = build_tables(runs)
    return table


def texts_of(figure):
    """(text, box in pixels) of everything written, drawn by Agg."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        legend = axes.get_legend()
        # Ticks outside the limits have labels too, which are not drawn.
        ticks = []
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            ticks += [t.label2 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
        texts = [*axes.texts, *ticks, axes.xaxis.label, axes.yaxis.label]
        for text in [*texts, *(legend.get_texts() if legend else [])]:
            # Rotated labels have boxes that overlap where the letters do not.
            if text.get_visible() and text.get_text() and text.get_rotation() in (0, 90):
                yield text.get_text(), text.get_window_extent(renderer)


@pytest.mark.parametrize(("num_tasks", "seeds"), [(8, (0,)), (20, (0, 1, 2))])
@pytest.mark.parametrize("plot", PLOTS)
def test_texts_are_inside_and_apart(plot, num_tasks, seeds):
    figure = plot(table_of(seeds=seeds, num_tasks=num_tasks))
    texts = list(texts_of(figure))
    assert len(texts) > 5
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (first, a), (second, b) in itertools.combinations(texts, 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        # Boxes include the room for ascenders; a pixel or two of it may be shared.
        assert width < 2 or height < 2, (first, second)


def test_methods_are_dots_and_references_lines():
    table = table_of()
    (axes,) = plot_methods(table).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["Weight average", "TIES", "Task Arithmetic", "TSV-M", "TSV-C"]
    dots = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines
            if line.get_marker() == "o"}  # fmt: skip
    values = {row.label: row.absolute.value for row in table.rows}
    assert [dots[height] for height in range(5)] == [values[label] for label in labels]
    written = " ".join(text.get_text() for text in axes.texts)
    assert f"Zero-shot {100 * values['Zero-shot']:.1f}" in written
    assert f"Individual {100 * values['Individual']:.1f}" in written


@pytest.mark.parametrize("methods", [["tsv_merge"], ["zero_shot"], ["zero_shot", "individual"]])
def test_few_methods_can_be_plotted(methods):
    table = table_of(methods)
    for plot in (plot_methods, plot_tasks):
        FigureCanvasAgg(plot(table)).draw()


def test_tasks_are_a_map_of_the_accuracies():
    table = table_of(num_tasks=3)
    axes = plot_tasks(table).axes[0]
    drawn = axes.images[0].get_array()
    expected = [[row.accuracy[task] for task in table.tasks] for row in table.rows]
    np.testing.assert_array_equal(drawn, expected)


def test_chosen_alpha_is_marked_on_its_curve():
    table = table_of(["ties", "tsv_merge", "individual"], seeds=(0, 1))
    (axes,) = plot_alphas(table).axes
    marked = [tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    expected = [
        (run.alpha, max(point["normalized"] for point in run.alpha_curve))
        for run in table.runs
        if run.alpha_curve
    ]
    assert sorted(marked) == sorted(expected) and len(marked) == 4
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["TIES", "TSV-M"]


def test_no_curve_to_plot_says_so():
    with pytest.raises(ValueError, match="no method on mini8 searched alpha"):
        plot_alphas(table_of(["individual"]))


def test_figures_need_no_pyplot():
    before = "matplotlib.pyplot" in sys.modules
    plot_methods(table_of(["tsv_merge"]))
    assert ("matplotlib.pyplot" in sys.modules) == before
