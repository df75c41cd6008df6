"""What README and results/ show is what tsv-report renders from the Runs beside it."""

import hashlib
from functools import cache
from pathlib import Path

import pytest
from made_up.every_method import LEFT_OUT

from tsv_bench.benchmark.runs import load_correct, load_run
from tsv_bench.cli.config.overrides import options
from tsv_bench.report.tables.table import read_tables
from tsv_bench.report.text.numbers import with_interval
from tsv_bench.report.text.render import render_csv, render_markdown

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "results" / "embedded"


@cache
def tables_of(name):
    return read_tables(ROOT / "results" / name / "runs")


@pytest.fixture(scope="module")
def table():
    (table,) = [t for t in tables_of("embedded") if t.suite == "mini8"]
    return table


@pytest.fixture(scope="module")
def rows(table):
    return {row.method: row for row in table.rows}


def lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_readme_shows_the_rendered_table(table):
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    rendered = lines(render_markdown([table]), "|")
    assert len(rendered) == 2 + 7
    assert "\n".join(rendered) in shown
    assert "\n".join(lines(render_markdown([table]), "- ")) in shown


def test_results_are_rendered_from_the_runs(table):
    tables = tables_of("embedded")
    shown = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    for rendered in tables:
        # All but the heading: title, provenance, table, comparisons.
        assert render_markdown([rendered]).split("\n", 1)[1].strip() in shown
    assert (EMBEDDED / "table.md").read_text(encoding="utf-8") == render_markdown(tables)
    assert (EMBEDDED / "table.csv").read_text(encoding="utf-8") == render_csv(tables)


@pytest.mark.parametrize(
    "name, layout",
    [
        ("leaderboard", "leaderboard"),
        ("rank_sweep", "runs"),
        ("unseen", "runs"),
        ("corrupted", "runs"),
        ("mini20", "runs"),
    ],
)
def test_other_results_are_rendered_from_their_runs(name, layout):
    folder = ROOT / "results" / name
    tables = tables_of(name)
    stem = "table" if layout == "runs" else layout
    for end, render in (("md", render_markdown), ("csv", render_csv)):
        assert (folder / f"{stem}.{end}").read_text(encoding="utf-8") == render(tables, layout)


@pytest.mark.parametrize("name", ["unseen", "corrupted"])
def test_what_is_tested_beyond_the_suite_is_whole(name):
    """All methods, three seeds, one clean commit; images as they are count as in the README's."""
    [table] = tables_of(name)
    assert len(table.rows) == 7 and all(row.seeds == (0, 1, 2) for row in table.rows)
    [commit] = {run.commit for run in table.runs}
    shown = (ROOT / "results" / name / "README.md").read_text(encoding="utf-8")
    assert f"`{commit}`" in shown and "dirty" not in commit
    for row in table.rows:
        second = row.unseen if name == "unseen" else row.corrupted[""]
        cells = " | ".join(map(with_interval, (row.absolute, second)))
        assert f"| {row.label} | {cells} |" in shown
    if name == "unseen":
        return
    here = {(run.method, run.seed): run.test for run in table.runs}
    [of_readme] = [t for t in tables_of("embedded") if t.suite == "mini8"]
    there = {(run.method, run.seed): run.test for run in of_readme.runs}
    assert len(here.keys() & there.keys()) == 18
    assert all(here[key] == there[key] for key in here.keys() & there.keys())


def test_mini20_is_whole_and_of_one_clean_commit():
    [table] = tables_of("mini20")
    assert table.suite == "mini20" and len(table.rows) == 7
    [commit] = {run.commit for run in table.runs}
    shown = (ROOT / "results" / "mini20" / "README.md").read_text(encoding="utf-8")
    assert f"`{commit}`" in shown and "dirty" not in commit
    assert "\n".join(lines(render_markdown([table]), "|")) in shown
    # Its fourteen earlier tasks are those of mini14, to the image.
    for method in ("zero_shot", "individual"):
        here, there = (
            load_correct(next((ROOT / "results" / place).glob(f"{method}-*.json")))
            for place in ("mini20/runs/mini/mini20", "embedded/runs/mini/mini14")
        )
        assert len(there) == 14
        assert all((here[task] == there[task]).all() for task in there)


def test_the_leaderboard_is_whole():
    """All methods, of three seeds, each at one commit; every image of the README's Runs alike."""
    folder = ROOT / "results" / "leaderboard"
    [table] = tables_of("leaderboard")
    assert {row.method for row in table.rows} == set(options("method")) - LEFT_OUT
    assert all(row.seeds == (0, 1, 2) for row in table.rows)
    assert all(len({run.commit for run in row.runs}) == 1 for row in table.rows)
    found = list((folder / "runs").rglob("*.json"))
    of_readme = [p for p in (EMBEDDED / "runs").rglob("*.json") if load_run(p).suite == "mini8"]
    assert len(of_readme) == 21
    for path in of_readme:
        [same] = [other for other in found if other.name == path.name]
        here, there = load_correct(path), load_correct(same)
        assert all((here[task] == there[task]).all() for task in here), path.name
    rendered = (folder / "leaderboard.md").read_text(encoding="utf-8").split("\n", 1)[1].strip()
    assert rendered in (folder / "README.md").read_text(encoding="utf-8")


def test_results_are_of_the_shipped_weights(table):
    weights = ROOT / "tsv_bench" / "models" / "mini.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert {run.checkpoints["pretrained"]["sha256"] for run in table.runs} == {digest}


def test_three_seeds_of_every_method(table, rows):
    assert table.seeds == [0, 1, 2]
    assert all(row.seeds == (0, 1, 2) for row in rows.values())
    weights = {run.checkpoints["digits"]["sha256"] for run in rows["individual"].runs}
    assert len(weights) == 3, "the seeds gave the same weights"


def test_the_order_that_the_readme_claims(table, rows):
    value = {method: row.absolute.value for method, row in rows.items()}
    chance = sum(1 / n for n in (10, 10, 16, 14, 12, 24, 30, 12)) / 8
    assert 5 * chance < value["zero_shot"] < value["individual"] - 0.2
    assert value["individual"] >= 0.85
    assert rows["tsv_compress"].normalized.value >= 0.99
    compared = {c.text: c.estimate for c in table.comparisons}
    for text in ("Task Arithmetic - Weight average", "TSV-M - Task Arithmetic"):
        assert compared[text].images.low > 0 and compared[text].seeds.low > 0
