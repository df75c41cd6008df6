"""The figure of searches: it draws what Runs noted, and refuses what they cannot have noted."""

from dataclasses import replace

import numpy as np
import pytest
from made_up.damaged_runs import nested
from made_up.runs import make_run
from stand_ins.boxes import overlapping, texts_of

from tsv_bench.report.plots.searches import caption_searches, found_of, plot_searches
from tsv_bench.report.plots.style import NothingToPlot
from tsv_bench.report.tables.table import build_tables

pytestmark = pytest.mark.usefixtures("few_resamples")
TASKS = ("greek", "land")


def noted(seed=0, several=0, count=25):
    """What merge3 notes; ``several``: its number of objectives, if more than one."""
    drawn = np.random.default_rng(seed)
    accuracy = drawn.uniform(0.5, 0.8, (count, len(TASKS)))
    estimate = np.clip(accuracy + drawn.normal(0, 0.03, accuracy.shape), 0, 1)

    def of_tasks(values):
        return [dict(zip(TASKS, row, strict=True)) for row in values.tolist()]

    asked = drawn.uniform(0.4, 0.9, (60, several)).tolist() if several else []
    return {
        "last_generation": {"estimate": of_tasks(estimate), "accuracy": of_tasks(accuracy)},
        "objectives": [f"task {n} + another task, and more of them" for n in range(several or 1)],
        "asked": asked,
        "front": asked[:5],
    }


def table_of(details, label="MERGE3"):
    runs = []
    for number, content in enumerate(details):
        run, bits = make_run("weight_average", tasks=TASKS, details={"merge3": content})
        own = {"method": "merge3", "label": label, "fingerprint": f"{number}"}
        runs.append((replace(run, knobs={"base": str(number)}, **own), bits))
    [table] = build_tables([*runs, make_run("tsv_merge", tasks=TASKS)])
    return table


@pytest.mark.parametrize(
    "details",
    [[noted()], [noted(0), noted(1)], [noted(several=2)], [noted(several=3), noted(1, 2)]],
    ids=["one", "two", "a front", "two fronts"],
)
def test_texts_do_not_overlap_and_points_are_the_candidates_means(details):
    table = table_of(details)
    figure = plot_searches(table)
    assert overlapping(list(texts_of(figure))) == []
    points, *fronts = figure.axes
    for line, content in zip(points.lines, details, strict=False):
        last = content["last_generation"]
        for found, side in zip(line.get_data(), ("estimate", "accuracy"), strict=True):
            np.testing.assert_allclose(found, [np.mean(list(c.values())) for c in last[side]])
    several = [content for content in details if content["front"]]
    assert len(fronts) == len(several)
    for axes, content in zip(fronts, several, strict=True):
        found = {tuple(point) for point in np.transpose(axes.lines[1].get_data()).tolist()}
        assert found == {tuple(point[:2]) for point in content["front"]}
    assert ("front" in caption_searches(table)) == bool(several)


def test_without_a_search_there_is_nothing():
    with pytest.raises(NothingToPlot, match="noted a search. Make one with: tsv-bench method=mer"):
        plot_searches(build_tables([make_run("tsv_merge")])[0])


def damaged():
    """Details that no method noted."""
    good = noted(several=2)
    yield from ([], {}, "x" * 1000, 3, nested(10))
    for name in ("last_generation", "objectives", "asked", "front"):
        yield from (good | {name: value} for value in ("x", 7, {"a": 1}, None, [nested(3)], [[1]]))
    last = good["last_generation"]
    for value in (2, -1, "1", None, True, [0.5]):
        broken = [{**last["estimate"][0], "land": value}, *last["estimate"][1:]]
        yield good | {"last_generation": last | {"estimate": broken}}
    yield good | {"last_generation": last | {"estimate": last["estimate"][1:]}}
    yield good | {"last_generation": last | {"accuracy": [{"land": 0.5}] * 25}}
    yield good | {"last_generation": {"estimate": [], "accuracy": []}, "front": []}
    yield from (good | {"front": [[0.5, value]]} for value in ("1", None, True, 1e9))
    yield good | {"asked": [[0.5, 0.5]] * 20_000}


def test_what_cannot_have_been_noted_is_not_drawn():
    run, _ = make_run("weight_average", tasks=TASKS)
    assert found_of(replace(run, details={"merge3": noted()}))
    for content in damaged():
        assert found_of(replace(run, details={"merge3": content})) is None, content


def test_no_text_of_a_run_is_more_than_text():
    content = noted(several=2)
    content["objectives"] = ["$\\frac{1}{2}$ <b>", "a\x1b[31m" + "b" * 500]
    texts = [text for text, _ in texts_of(plot_searches(table_of([content], "$x$")))]
    assert "$\\frac{1}{2}$ <b>" in texts
    assert not [text for text in texts if "\x1b" in text or len(text) > 100]
