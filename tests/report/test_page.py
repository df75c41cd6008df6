"""The page as a file: it holds all Runs, needs no other file, and lets no text become html."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from made_up.runs import LABELS, make_run, make_vision_run
from stand_ins.commands import tsv

from tsv_bench.benchmark.runs import save_run
from tsv_bench.report.page import NAME, as_json, render_page, write_page
from tsv_bench.report.page.packed_runs import pack_bits, pack_runs
from tsv_bench.report.page.sections import BROAD
from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.table import build_tables
from tsv_bench.report.text.render import make_sheets

pytestmark = pytest.mark.usefixtures("few_resamples")


def page_of(evaluated):
    tables = build_tables(evaluated)
    return render_page(evaluated, tables, make_sheets(tables))


def data_of(page):
    script = r'<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(script, page)[1])


def test_the_page_needs_no_other_file():
    page = page_of([make_run(method) for method in LABELS])
    figure = r'<img( class="broad")? src="data:image/svg\+xml;base64,([\w+/=]+)" width="(\d+)"'
    found = re.findall(figure, page)
    points = [re.search(rb'width="([\d.]+)pt"', base64.b64decode(svg))[1] for _, svg, _ in found]
    widths = [int(width) for *_, width in found]
    assert [float(p) * 96 / 72 for p in points] == pytest.approx(widths, abs=1)  # each its own
    assert len(set(widths)) > 2
    broad = {(bool(broad), int(width) > BROAD) for broad, _, width in found}
    assert broad == {(True, True), (False, False)}
    # Figures are left out: they contain names of namespaces, which look like addresses.
    page = re.sub(r"data:image/svg\+xml;base64,[\w+/=]+", "data:", page)
    assert not re.findall(r"""(?:src|href)=["']?(?!data:|#)[^"' >]+""", page)
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest|import\(", page)
    assert "default-src 'none'" in page
    assert "{{" not in page


@pytest.mark.usefixtures("blank_figures")
def test_every_run_is_in_the_page_and_says_whether_a_table_shows_it():
    old, correct = make_run("ties", created="2024-01-01T00:00:00+00:00", fingerprint="old")
    evaluated = [make_run("tsv_merge"), (old, correct), make_run("ties"), make_run("individual")]
    data = data_of(page_of(evaluated))
    assert [(r["method"], r["in_table"]) for r in data["runs"]] == [
        ("tsv_merge", True), ("ties", False), ("ties", True), ("individual", True)
    ]  # fmt: skip
    run, _ = evaluated[0]
    first = data["runs"][0]
    assert first["absolute"] == run.absolute and first["machine"] == run.machine
    assert data["pool"][first["checkpoints"]] == run.checkpoints
    assert list(data["pool"][first["tasks"]]) == list(run.tasks)
    settings = {name: data["pool"][number] for name, number in first["settings"].items()}
    assert settings == run.settings


@pytest.mark.usefixtures("blank_figures")
def test_labels_tell_runs_of_one_method_apart():
    knobs = {"rank_fraction": 0.5, "polar": "svd"}
    runs = [make_run("tsv_merge"), make_run("tsv_merge", knobs=knobs, fingerprint="b")]
    labels = [run["label"] for run in data_of(page_of(runs))["runs"]]
    assert labels == ["TSV-M (rank_fraction=null)", "TSV-M (rank_fraction=0.5)"]


def test_bits_are_packed_in_order():
    bits = np.array([1, 0, 0, 0, 0, 0, 0, 1, 0, 1], bool)
    assert base64.b64decode(pack_bits(bits)) == bytes([0b10000001, 0b01000000])
    assert len(pack_bits(np.ones(4000, bool))) == 668


def test_the_interval_of_a_run_is_that_of_a_table_of_it_alone():
    run, correct = make_run("ties")
    (table,) = build_tables([(run, correct)])
    images = table.rows[0].absolute.images
    assert pack_runs([(run, correct)], [table])["runs"][0]["interval"] == [images.low, images.high]


def test_the_interval_of_a_task_is_that_of_the_tables():
    run, correct = make_run("ties")
    packed = pack_runs([(run, correct)], [])
    test = packed["pool"][packed["runs"][0]["test"]]
    for task, score in run.test.items():
        wilson = statistics.wilson(score.accuracy, score.total)
        assert test[task]["interval"] == [wilson.low, wilson.high]


def test_an_old_run_does_not_say_whether_the_task_must_be_known():
    old, new = make_run("ties", task_known=False), make_run("ties", stored_bytes=8)
    packed = pack_runs([old, new, make_run("individual")], [])["runs"]
    assert [run["served"] for run in packed] == [None, "one", "own"]


@pytest.mark.usefixtures("blank_figures")
def test_lost_correctness_and_numbers_that_are_none():
    run, _ = make_run("ties")
    page = page_of([(replace(run, normalized=float("nan")), None)])
    (packed,) = data_of(page)["runs"]
    assert packed["correct"] is None and packed["interval"] is None and packed["normalized"] is None


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize(("generation", "comparable"), [("original", True), ("fixed", False)])
def test_published_figures_are_of_a_generation(generation, comparable):
    run, correct = make_vision_run("task_arithmetic", generation=generation)
    data = data_of(page_of([(run, correct)]))
    published = data["pool"][data["runs"][0]["published"]]
    assert published["figure"]["generation"] == "original"
    assert published["comparable"] == comparable
    expected = {"absolute", "normalized"} if comparable else set()
    assert set(published["differences"]) == expected


def test_what_a_run_says_is_no_html():
    nasty = "</script><script>alert(1)</script><!--{{styles}} & \u2028"
    tasks = ("digits", "land")
    run, correct = make_run("ties", tasks=tasks, label=nasty + " $x$_$", machine=nasty)
    run = replace(run, tasks=dict.fromkeys(tasks, nasty))
    page = page_of([(run, correct)])
    assert "<script>alert" not in page and page.count("</script>") == 2
    assert data_of(page)["runs"][0]["machine"] == nasty
    assert json.loads(as_json([nasty, "<!--", "]]>"])) == [nasty, "<!--", "]]>"]


def test_two_hundred_runs_share_what_is_the_same():
    evaluated = [make_run(method) for method in ("ties", "tsv_merge")]
    packed = pack_runs(evaluated, [])
    many = [(replace(run, seed=seed), c) for seed in range(100) for run, c in evaluated]
    assert len(pack_runs(many, [])["pool"]) == len(packed["pool"])


def test_the_same_runs_give_the_same_bytes(tmp_path):
    methods, tasks = ("ties", "tsv_merge", "individual"), ("digits", "land", "greek")
    evaluated = [make_run(method, tasks=tasks) for method in methods]
    tables = build_tables(evaluated)
    paths = [write_page(evaluated, tables, make_sheets(tables), tmp_path / n) for n in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_command_writes_the_page_when_asked(tmp_path):
    save_run(*make_run("tsv_merge"), tmp_path / "runs")
    assert tsv(tmp_path, "report").code == 0
    assert not (tmp_path / "runs" / "report" / NAME).exists()
    result = tsv(tmp_path, "report", "html=true", "paths.report=out", "layout=paper")
    assert result.code == 0, result.err
    assert f"wrote out/{NAME}" in result.out and (tmp_path / "out" / NAME).stat().st_size > 10_000


def test_no_run_says_where_it_looked(tmp_path):
    (tmp_path / "empty").mkdir()
    result = tsv(tmp_path, "report", "html=true", "paths.runs=empty")
    assert result.code == 1 and str(tmp_path / "empty") in result.err
    assert not (tmp_path / "runs").exists()
