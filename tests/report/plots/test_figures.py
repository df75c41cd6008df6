"""Figures of a table: they draw its numbers, and no texts overlap or stick out."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from made_up.runs import LABELS, TASKS, make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from stand_ins.boxes import overlapping, texts_of

from tsv_bench.report.plots import (
    plot_alphas,
    plot_methods,
    plot_radar,
    plot_ranks,
    plot_sizes,
    plot_tasks,
)
from tsv_bench.report.plots.figures import FAMILIES, draw_figures
from tsv_bench.report.plots.labels import spread, within
from tsv_bench.report.plots.style import NothingToPlot, color_and_marker, save_figure, svg_bytes
from tsv_bench.report.tables.table import build_tables

pytestmark = pytest.mark.usefixtures("few_resamples")

PLOTS = [plot_methods, plot_tasks, plot_alphas, plot_radar, plot_ranks, plot_sizes]
TASK_KNOWN = ("tsv_compress", "individual")
FRACTIONS = (0.01, 0.05, 0.1, 0.5)


def table_of(methods=tuple(LABELS), seeds=(0,), num_tasks=8, num_more=0, fractions=(), sized=True):
    """Build a table with ``num_more`` other merges, and TSV-C at these rank fractions."""
    tasks = [f"{task}{i or ''}" for i in range(3) for task in TASKS][:num_tasks]
    changes = [(method, {}) for method in methods]
    like = ("ties", "tsv_merge", "task_arithmetic", "weight_average")
    changes += [
        (like[i % 4], {"method": f"more_{i}", "label": f"Another {i}"}) for i in range(num_more)
    ]
    changes += [("tsv_compress", {"knobs": {"rank_fraction": f}}) for f in fractions]
    runs = []
    for number, (method, change) in enumerate(changes):
        known = method in TASK_KNOWN
        share = {"zero_shot": 0, "individual": 1, "tsv_compress": 0.15}.get(method, 1 / num_tasks)
        share = change.get("knobs", {}).get("rank_fraction", share)
        size = int(4e5 * num_tasks * share) if sized else None
        change = {"task_known": known, "stored_bytes": size} | change
        for seed in seeds:
            of_own = {"fingerprint": f"{number}-{seed}"} | change
            name = of_own.pop("method", None)
            run, correct = make_run(method, seed, tasks=tasks, **of_own)
            runs.append((replace(run, method=name) if name else run, correct))
    (table,) = build_tables(runs)
    return table


@pytest.fixture(scope="module")
def small():
    return table_of(fractions=FRACTIONS)


@pytest.fixture(scope="module")
def large():
    return table_of(seeds=(0, 1, 2), num_tasks=20, num_more=10, fractions=FRACTIONS)


@pytest.fixture(scope="module")
def old():
    """Return a table of Runs that do not say what they store."""
    return table_of(fractions=FRACTIONS, sized=False)


@pytest.mark.parametrize(
    ("plot", "size"),
    [*((plot, size) for plot in PLOTS for size in ("small", "large")), (plot_ranks, "old")],
)
def test_texts_are_inside_and_apart(plot, size, request):
    figure = plot(request.getfixturevalue(size))
    texts = list(texts_of(figure))
    assert len(texts) > 5
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    assert not overlapping(texts)


def test_methods_are_dots_and_references_lines():
    table = table_of()
    (axes,) = plot_methods(table).axes
    labels = [label.get_text() for label in axes.get_yticklabels()][::-1]
    values = {row.label: row.absolute.value for row in table.rows}
    merged = ["Weight average", "Task Arithmetic", "TIES", "TSV-M"]
    best_first = sorted(merged, key=values.get, reverse=True)
    assert labels == ["One model for all tasks", *best_first, "Task known at inference", "TSV-C"]
    dots = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines
            if line.get_marker() == "o"}  # fmt: skip
    heights = {label: len(labels) - 1 - i for i, label in enumerate(labels) if label in values}
    assert {label: dots[height] for label, height in heights.items()} == {
        label: values[label] for label in heights
    }
    written = " ".join(text.get_text() for text in axes.texts)
    assert f"Zero-shot {100 * values['Zero-shot']:.1f}" in written
    assert f"Individual {100 * values['Individual']:.1f}" in written


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


def test_many_curves_get_a_panel_each(large):
    figure = plot_alphas(large)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [row.label for row in large.rows if row.runs[0].alpha_curve]
    for axes in figure.axes:
        assert sum(len(line.get_xdata()) == 1 for line in axes.lines) == 3, "a marker a seed"


def test_a_radar_shows_the_references_and_the_best_merges(large):
    (axes,) = plot_radar(large).axes
    rows = {row.label: row for row in large.rows}
    shown = {line.get_label().rpartition(" ")[0]: line for line in axes.lines}
    assert {"Zero-shot", "Individual", "Task Arithmetic"} < set(shown) and len(shown) == 6
    others = [row for label, row in rows.items() if label not in shown]
    worst = min(rows[label].absolute.value for label in set(shown) - {
        "Zero-shot", "Individual", "Task Arithmetic"})  # fmt: skip
    assert all(r.absolute.value <= worst for r in others if not r.runs[0].task_known)
    for label, line in shown.items():
        np.testing.assert_array_equal(line.get_ydata()[:-1], list(rows[label].accuracy.values()))


def test_rank_curves_are_drawn_against_fractions_and_bytes(small):
    left, right = plot_ranks(small).axes
    rows = [r for r in small.rows if "rank_fraction" in r.runs[0].knobs and r.method != "tsv_merge"]
    means = [row.absolute.value for row in rows]
    for axes, scale in ((left, 1), (right, 0.4)):
        (line,) = (line for line in axes.lines if line.get_label() == "mean")
        assert axes.get_xscale() == "log"
        np.testing.assert_allclose(line.get_xdata(), scale * np.array(FRACTIONS), rtol=1e-6)
        np.testing.assert_array_equal(line.get_ydata(), means)
    tasks = [line for line in left.lines if list(line.get_xdata()) == list(FRACTIONS)]
    assert len(tasks) == 1 + len(small.tasks)


def test_sizes_are_megabytes_a_task(small):
    (axes,) = plot_sizes(small).axes
    drawn = {tuple(place) for line in axes.lines if line.get_linestyle() == "None"
             for place in line.get_xydata()}  # fmt: skip
    for row in small.rows:
        size = row.runs[0].stored_bytes / 8 / 1e6
        hidden = row.runs[0].knobs.get("rank_fraction") in FRACTIONS[:-1] or not size
        assert ((size, row.absolute.value) in drawn) != hidden, row.label
    names = [text.get_text() for text in axes.texts]
    assert sorted(names) == sorted(set(names)) and "Task Arithmetic" in names


def test_labels_of_a_column_are_apart_in_order_and_near():
    assert spread([0, 10, 20], 5) == [0, 10, 20]
    assert spread([0, 1, 20], 5) == [-2, 3, 20]
    assert spread([7, 7, 7, 8], 4) == pytest.approx([1.25, 5.25, 9.25, 13.25])
    assert spread([0, 4, 4], 4) == pytest.approx([-4 / 3, 8 / 3, 20 / 3])
    assert within([-3, 2, 30], 0, 20, 5) == [0, 5, 20]


def test_what_there_is_nothing_for_is_left_out_with_the_reason():
    with pytest.raises(NothingToPlot, match="no method on mini8 searched alpha"):
        plot_alphas(table_of(["individual"]))
    drawn, left_out = draw_figures(build_tables([make_run("ties", tasks=("greek", "land"))])[0])
    assert [one.name for one in drawn] == ["methods", "tasks", "alpha"]
    for text, name in zip(left_out, ("radar", "rank", "size", "rounds", "searches"), strict=True):
        assert text.startswith(f"No figure '{name}': ")
    assert "needs 3 or more" in left_out[0] and "rank_fraction" in left_out[1]
    assert "overwrite=true" in left_out[2]


@pytest.mark.parametrize(
    "methods", [["zero_shot"], ["tsv_merge"], ["tsv_compress"], ["zero_shot", "individual"]]
)
def test_few_runs_are_drawn_or_left_out(methods):
    drawn, left_out = draw_figures(table_of(methods))
    assert {"methods", "tasks"} <= {one.name for one in drawn}
    assert len(drawn) + len(left_out) == len(FAMILIES)
    for one in drawn:
        FigureCanvasAgg(one.figure).draw()


def test_svgs_are_the_same_again_and_their_text_is_text(tmp_path):
    table = table_of(("zero_shot", "ties", "individual"), num_tasks=3, fractions=FRACTIONS)
    first, again = ({one.name: one.figure for one in draw_figures(table)[0]} for _ in range(2))
    assert set(first) >= {"methods", "tasks", "alpha", "radar", "rank", "size"}
    for name, figure in first.items():
        text = svg_bytes(figure)
        assert text == svg_bytes(again[name]), name
        assert b"<text" in text and b"dc:date" not in text
        assert not any(t.get_parse_math() for t in figure.findobj(Text)), name  # knobs may have a $
    paths = [save_figure(each["size"], tmp_path / folder, "a") for folder, each in
             (("first", first), ("again", again))]  # fmt: skip
    for one, other in zip(*paths, strict=True):
        assert one.suffix in (".svg", ".png") and one.read_bytes() == other.read_bytes()


def test_methods_are_told_apart_without_colour():
    pairs = [color_and_marker(index) for index in range(49)]
    assert len(set(pairs)) == 49
    assert len({marker for _, marker in pairs[:7]}) == 7


def test_figures_need_no_pyplot():
    before = "matplotlib.pyplot" in sys.modules
    plot_methods(table_of(["tsv_merge"]))
    assert ("matplotlib.pyplot" in sys.modules) == before
