"""The figure of rounds: it draws what Runs noted, and refuses what they cannot have noted."""

from dataclasses import replace

import numpy as np
import pytest
from made_up.damaged_runs import nested
from made_up.runs import TASKS, make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from stand_ins.boxes import overlapping, texts_of

from tsv_bench.benchmark.runs import Seen
from tsv_bench.report.plots.rounds import caption_rounds, curve_of, plot_rounds
from tsv_bench.report.plots.style import NothingToPlot
from tsv_bench.report.tables.table import build_tables

pytestmark = pytest.mark.usefixtures("few_resamples")

SEEN = Seen(
    split="train",
    images=9,
    labels=True,
    forward_passes=1,
    backward_passes=1,
    seconds=1.0,
    share=1.0,
)


def noted(tasks, rounds, seed=0, images=80):
    """What a method notes of its rounds."""
    drawn = np.random.default_rng(seed)
    rise = np.linspace(0.4, 0.8, rounds + 1)
    right = {
        task: [int(images * min(1, r + drawn.uniform(-0.1, 0.15))) for r in rise] for task in tasks
    }
    return {
        "steps": list(range(rounds + 1)),
        "right": right,
        "images": dict.fromkeys(tasks, images),
    }


def table_of(num_tasks=8, rounds=10, seeds=(0,), seen=SEEN, others=True, **changes):
    tasks = [f"{task}{i or ''}" for i in range(3) for task in TASKS][:num_tasks]
    runs = []
    for seed in seeds:
        details = {"rounds": noted(tasks, rounds, seed)}
        run, bits = make_run("weight_average", seed, tasks=tasks, seen=seen, details=details)
        runs.append((replace(run, **{"method": "atm", "label": "ATM", **changes}), bits))
        for method in ("task_arithmetic", "tsv_merge", "individual") if others else ():
            run, bits = make_run(method, seed, tasks=tasks)
            runs.append((replace(run, val=run.test), bits))
    [table] = build_tables(runs)
    return table


@pytest.mark.parametrize(
    ("num_tasks", "seeds", "label"),
    [(2, (0,), "ATM"), (8, (0, 1, 2), "ATM"), (8, (0,), "long " * 100), (20, (0, 1), "ATM")],
)
def test_texts_are_inside_and_apart(num_tasks, seeds, label):
    figure = plot_rounds(table_of(num_tasks, seeds=seeds, label=label))
    texts = list(texts_of(figure))
    assert len(texts) > 5
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    assert not overlapping(texts)


def test_lines_are_the_accuracies_that_were_noted_and_those_of_others():
    table = table_of(seeds=(0, 1))
    rows = {row.method: row for row in table.rows}
    means, *panels = plot_rounds(table).axes
    assert [axes.get_title(loc="left") for axes in panels] == list(table.tasks.values())
    for task, axes in zip(table.tasks, panels, strict=True):
        for run, line in zip(rows["atm"].runs, axes.lines, strict=False):
            expected = np.array(run.details["rounds"]["right"][task]) / 80
            np.testing.assert_array_equal(line.get_ydata(), expected)
            assert list(line.get_xdata()) == list(range(11))
        for method, line in zip(("individual", "tsv_merge", "task_arithmetic"), axes.lines[2:]):  # noqa: B905
            level = np.mean([run.val[task].accuracy for run in rows[method].runs])
            np.testing.assert_allclose(line.get_ydata(), level)
        assert len(axes.lines) == 5
    for run, line in zip(rows["atm"].runs, means.lines, strict=False):
        expected = np.mean([np.array(h) / 80 for h in run.details["rounds"]["right"].values()], 0)
        np.testing.assert_allclose(line.get_ydata(), expected)
    labels = [line.get_label() for line in means.lines if not line.get_label().startswith("_")]
    assert labels == ["ATM", "Individual", "TSV-M", "Task Arithmetic"]


def test_the_caption_says_what_the_lines_are():
    caption = caption_rounds(table_of())
    assert "nothing is chosen by these accuracies" in caption and "No line of" not in caption
    assert "Grey lines: Individual, TSV-M and Task Arithmetic, on all validation" in caption
    caption = caption_rounds(table_of(others=False, seen=replace(SEEN, split="val", share=0.8)))
    assert "that sees validation images is evaluated on the others" in caption
    assert "No line of individual, task_arithmetic and tsv_merge" in caption
    FigureCanvasAgg(plot_rounds(table_of(others=False))).draw()


def test_without_rounds_there_is_nothing():
    with pytest.raises(NothingToPlot, match="noted its accuracy by round. Make one with: tsv-b"):
        plot_rounds(build_tables([make_run("tsv_merge")])[0])


def damaged():
    """Details that no method noted."""
    good = noted(["a", "b"], 3)
    yield from ([], {}, "x" * 1000, 3, nested(10))
    for steps in ([], [0, 1, 2], [0, 2, 1, 3], [0, 1, 1, 3], [True, 1, 2, 3], [0.5, 1, 2, 3],
                  "0123", [-1, 0, 1, 2], [0, 1, 2, 10**12], [*range(5000)], {"0": 1}):  # fmt: skip
        yield good | {"steps": steps}
    for hits in ([81, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 0], "0000", [None] * 4, [0.5] * 4, None, 7,
                 [nested(3)] * 4):  # fmt: skip
        yield good | {"right": good["right"] | {"b": hits}}
    for images in (0, -80, "80", None, 80.5, True, [80]):
        yield good | {"images": good["images"] | {"b": images}}
    yield good | {"right": {"a": good["right"]["a"]}}
    yield good | {"images": [80, 80]}
    yield good | {"right": None}


def test_what_cannot_have_been_noted_is_not_drawn():
    run, _ = make_run("weight_average", tasks=("a", "b"), seen=SEEN)
    assert curve_of(replace(run, details={"rounds": noted(["a", "b"], 3)}))
    for content in damaged():
        assert curve_of(replace(run, details={"rounds": content})) is None, content


def test_no_text_of_a_run_is_more_than_text():
    table = table_of(2, label="$\\frac{1}{2}$ <b>")
    figure = plot_rounds(table)
    assert "$\\frac{1}{2}$ <b>" in [text for text, _ in texts_of(figure)]
