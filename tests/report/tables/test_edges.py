"""A choice at the edge of its candidates is marked in every layout, in csv and on the page."""

import csv
import io
from dataclasses import replace

import pytest
from made_up.runs import TASKS, make_run

from tsv_bench.report.page.packed_runs import pack_runs
from tsv_bench.report.tables.edges import alpha_at_edge, is_at_edge, knobs_at_edge
from tsv_bench.report.tables.table import build_tables
from tsv_bench.report.text.render import render_csv, render_markdown, render_terminal

pytestmark = pytest.mark.usefixtures("few_resamples")

CANDIDATES = [0.2, 0.3, 0.4, 0.6]
NOTE = "alpha at the edge of its candidates"


def with_alpha(seed, alpha, tried):
    curve = [{"alpha": a, "normalized": 0.9 - 0.1 * abs(a - alpha)} for a in tried]
    return make_run("ties", seed, alpha=alpha, alpha_curve=curve)


def with_knobs(chosen, **method):
    run, correct = make_run("tsv_compress", task_knobs=chosen)
    settings = run.settings | {"method": {"candidates": CANDIDATES} | method}
    return replace(run, settings=settings), correct


@pytest.mark.parametrize(
    "value, candidates, expected",
    [
        (1.0, [0.5, 1.0], True),
        (0.5, [0.5, 0.7, 1.0], True),
        (0.7, [0.5, 0.7, 1.0], False),
        (1.0, [1.0], False),  # fixed
        (1.0, [], False),
        (0.0, [0.0, 0.5, 1.0], False),  # nothing lies below
    ],
)
def test_an_edge_is_the_least_or_largest_of_several(value, candidates, expected):
    assert is_at_edge(value, candidates) is expected


def test_a_search_that_stopped_early_is_at_no_edge():
    """Patience ends it after worse alphas, which are beyond the chosen one."""
    assert not alpha_at_edge(with_alpha(0, 0.7, [0.6, 0.7, 0.8, 0.9])[0])
    assert alpha_at_edge(with_alpha(0, 0.6, [0.6, 0.7, 0.8])[0])


@pytest.mark.parametrize("layout", ["runs", "leaderboard", "paper"])
def test_every_layout_marks_and_explains_it(layout):
    tried = [0.8, 0.9, 1.0]
    evaluated = [with_alpha(0, 1.0, tried), with_alpha(1, 0.9, tried), with_alpha(2, 1.0, tried)]
    tables = build_tables([*evaluated, *(make_run("individual", seed) for seed in range(3))])
    for text in (render_terminal(tables, layout=layout), render_markdown(tables, layout)):
        flat = " ".join(text.split())
        assert f"{NOTE}, beyond which a better one may lie: TIES (1 of 0.8 to 1, 2 of 3" in flat
        assert ("0.90-1.00 edge" in text) == (layout != "paper")  # which has no alphas
        assert text.count("edge") == 1 + (layout != "paper")
    if layout != "paper":
        records = csv.DictReader(io.StringIO(render_csv(tables, layout)))
        found = {record["method"]: record["alphas_at_edge"] for record in records}
        assert found == {"ties": "2", "individual": "0"}
    packed = pack_runs(evaluated, tables)["runs"]
    assert [run["at_edge"] for run in packed] == [True, False, True]


def test_nothing_is_said_where_no_choice_is_at_an_edge():
    tables = build_tables([with_alpha(0, 0.9, [0.8, 0.9, 1.0])])
    assert "edge" not in render_terminal(tables)


def test_knobs_chosen_at_their_edge():
    values = dict(zip(TASKS, (0.2, 0.2, 0.3, 0.4, 0.6, 0.4, 0.4, 0.3), strict=True))
    run, correct = with_knobs({task: {"mask_lambda": v} for task, v in values.items()})
    assert knobs_at_edge(run) == {"mask_lambda": 3}
    tables = build_tables([(run, correct)])
    assert "TSV-C (mask_lambda of 0.2 to 0.6, 3 of 8 choices)" in " ".join(tables[0].notes)
    assert "Digits 0.2 edge, Street 0.2 edge, Signs 0.3," in render_markdown(tables, "leaderboard")
    packed = pack_runs([(run, correct)], tables)
    edges = packed["pool"][packed["runs"][0]["knobs_at_edge"]]
    assert edges["digits"] == ["mask_lambda"] and edges["signs"] == []


def test_choices_and_candidates_of_all_seeds_are_counted():
    """Candidates are those of seeds at an edge."""
    first, second = ({task: {"k": value} for task in TASKS} for value in (0.2, 0.3))
    other, correct = with_knobs(second, candidates=[0.1, 0.3, 0.9])
    evaluated = [with_knobs(first), (replace(other, seed=1, fingerprint="1" * 12), correct)]
    notes = build_tables(evaluated)[0].notes
    assert "TSV-C (k of 0.2 to 0.6, 8 of 16 choices)" in " ".join(notes)
    grids = [with_alpha(0, 1.0, [0.8, 0.9, 1.0]), with_alpha(1, 0.5, [0.5, 0.7])]
    assert "TIES (1, 0.5 of 0.5 to 1, 2 of 2 seeds)" in " ".join(build_tables(grids)[0].notes)


def test_a_knob_of_the_suite_is_counted_in_seeds():
    chosen = {task: {"beta": 0.6} for task in TASKS}
    notes = build_tables([with_knobs(chosen, by="suite")])[0].notes
    assert "TSV-C (beta of 0.2 to 0.6)." in " ".join(notes)


@pytest.mark.parametrize("method", ["ties", ["ties"], {"candidates": "abc"}, {"candidates": [{}]}])
def test_settings_of_another_form_have_no_candidates(method):
    run, correct = make_run("tsv_compress", task_knobs={"digits": {"k": 0.2}})
    run = replace(run, settings=run.settings | {"method": method})
    for layout in ("runs", "leaderboard"):
        assert "edge" not in render_terminal(build_tables([(run, correct)]), layout=layout)
