"""A report beside damaged and hostile Runs: that of the others is the same, and no text escapes."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from made_up.damaged_runs import odd_files
from made_up.runs import make_run
from stand_ins.commands import tsv

from tsv_bench.benchmark.runs import save_run
from tsv_bench.report.page import render_page
from tsv_bench.report.tables.rank_curves import rank_curves
from tsv_bench.report.tables.table import build_tables, group_runs, read_tables
from tsv_bench.report.text.layouts import LAYOUTS
from tsv_bench.report.text.render import make_sheets, render_markdown, render_terminal
from tsv_bench.report.text.two_methods import write_comparison
from tsv_bench.report.write_report import write_report

pytestmark = pytest.mark.usefixtures("few_resamples")

SMALL = {"tasks": ("land", "greek"), "num_images": 8}
TEXT = "=cmd|'/C calc'!A0 <script>alert(1)</script> [x](javascript:y) *b*"


@pytest.fixture
def folder(tmp_path):
    for method in ("ties", "individual"):
        save_run(*make_run(method, **SMALL), tmp_path / "runs")
    return tmp_path


def test_a_report_beside_damaged_files_is_that_of_the_others(folder):
    expected = tsv(folder, "report", "paths.report=expected")
    assert expected.code == 0 and not expected.err
    path = min((folder / "runs").rglob("*.json"))
    odd = odd_files(path, path.read_text())
    content = json.loads(path.read_text())
    for number, name in enumerate(("backbone", "suite", "method")):
        hostile = path.with_name(f"hostile{number}.json")
        hostile.write_text(json.dumps(content | {name: "../../outside"}))
        shutil.copy(path.with_suffix(".npz"), hostile.with_suffix(".npz"))
        odd.append(hostile)
    before = {p for p in folder.rglob("*") if "report" not in p.parts}
    result = tsv(folder, "report", "paths.report=report", "html=true")
    assert result.code == 0 and "Traceback" not in result.err
    assert result.err.count("skipped: ") == len(odd)
    for name in ("table.md", "table.csv", "table.tex", "figures.md"):
        texts = [
            (folder / place / name).read_text().replace(f"paths.report={place}", "")
            for place in ("expected", "report")
        ]
        assert texts[0] == texts[1], name
    assert {p for p in folder.rglob("*") if "report" not in p.parts} == before
    assert {p.parent for p in folder.parent.rglob("*outside*")} == set()


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_format_takes_a_text_for_more_than_text(layout, tmp_path):
    run, correct = make_run("ties", **SMALL, label=TEXT, commit=TEXT, knobs={"a": TEXT})
    run = replace(run, tasks=dict.fromkeys(run.tasks, TEXT))
    evaluated = [(run, correct), make_run("individual", **SMALL)]
    tables = build_tables(evaluated)
    paths = write_report(tables, tmp_path, layout)
    of_names = {path.name: path.read_text() for path in paths if path.suffix == ".csv"}
    assert len(of_names) == 3
    for cells in of_names.values():
        assert f"'{TEXT}" in cells and f",{TEXT}" not in cells
    marked = "".join(path.read_text() for path in paths if path.suffix == ".md")
    for special in ("<script", "</script", "x](j", " *b", "=cmd|"):
        assert special not in marked
    assert r"=cmd\|'/C calc'!A0 &lt;script>alert(1)&lt;/script> [x\](j" in marked
    page = render_page(evaluated, tables, make_sheets(tables, layout))
    assert "<script>alert" not in page and "alert(1)" in page


def test_a_knob_with_control_characters_is_written_out():
    knobs = [{"pattern": "a"}, {"pattern": "\x1b[31m\nb"}]
    runs = [make_run("ties", **SMALL, knobs=k, fingerprint=f"{n}") for n, k in enumerate(knobs)]
    tables = build_tables(runs)
    for text in (render_terminal(tables), render_markdown(tables)):
        assert "\x1b" not in text
        assert r"x1b[31m" in text


def test_two_suites_of_one_name_keep_a_table_each():
    """a-b on c, and a on b-c: their files had the same name."""
    pairs = [("a", "b-c"), ("a-b", "c")]
    runs = [make_run("ties", **SMALL, backbone=b, suite=s) for b, s in pairs]
    assert list(group_runs(runs)) == ["a-b-c", "a-b-c-2"]


def test_individual_models_that_are_never_right_cost_one_comparison():
    run, correct = make_run("individual", **SMALL, normalizer={})
    correct = correct | {"land": ~correct["land"] & False}
    score = replace(run.test["land"], accuracy=0.0, correct=0)
    run = replace(run, test=run.test | {"land": score})
    (table,) = build_tables([(run, correct), make_run("tsv_compress", **SMALL)])
    assert not table.comparisons
    assert any("no TSV-C / Individual: " in note and "'land'" in note for note in table.notes)


def test_a_rank_fraction_that_is_none_makes_no_curve():
    knobs = [{"rank_fraction": value} for value in ("half", [1], {}, 10**400, -1, 0, None)]
    runs = [make_run("ties", **SMALL, knobs=k, fingerprint=f"{n}") for n, k in enumerate(knobs)]
    (table,) = build_tables(runs)
    assert len(table.rows) == len(knobs) and not rank_curves(table)


def test_a_table_too_wide_for_a_terminal_is_shown_all_the_same():
    tables = build_tables([make_run("ties", **SMALL, alpha=2.0**53, seconds={"merge": 2.0**53})])
    text = render_terminal(tables, width=40)
    assert "9007199254740992" in text


@pytest.mark.usefixtures("blank_figures")
def test_a_figure_too_large_to_draw_is_left_out(tmp_path):
    run, correct = make_run("ties", **SMALL)
    run = replace(run, tasks=dict.fromkeys(run.tasks, "x" * 10_000))
    paths = write_report(build_tables([(run, correct)]), tmp_path)
    assert "No figure 'tasks': it would be" in paths[-1].read_text()
    assert not [path for path in paths if path.name.endswith("-tasks.png")]


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("what", ["report", "comparison"])
def test_a_full_disk_leaves_the_old_files(what, tmp_path, monkeypatch):
    def write():
        if what == "report":
            write_report(build_tables([make_run("ties", **SMALL)]), tmp_path)
        else:
            write_comparison([], ["no reason"], tmp_path)

    def full_disk(path, text, **how):
        with path.open("w") as file:
            file.write(text[: len(text) // 2])
        raise OSError("no space left on device")

    write()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("pathlib.Path.write_text", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("arguments", [[], ["compare=[ties,individual]"], ["html=true"]])
def test_files_are_written_though_nothing_can_be_printed(arguments, folder, monkeypatch):
    written = tsv(folder, "report", *arguments)
    assert written.code == 0
    names = {path.name for path in (folder / "runs" / "report").iterdir()}

    def full_disk(text):
        raise OSError("cannot print")

    monkeypatch.setattr("tsv_bench.cli.work.report.show", full_disk)
    result = tsv(folder, "report", *arguments, "paths.report=again")
    assert result.code == 1 and "tsv-report: error: cannot print" in result.err
    assert {path.name for path in (folder / "again").iterdir()} == names


def test_a_report_of_runs_without_correctness_is_made(folder):
    for path in (folder / "runs").rglob("*.npz"):
        path.unlink()
        os.mkfifo(path)
    result = tsv(folder, "report")
    assert result.code == 0 and result.err.count("no regular file") == 2
    (table,) = read_tables(folder / "runs")
    assert [row.absolute.images for row in table.rows] == [None, None]
