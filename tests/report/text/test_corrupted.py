"""Tables, csv and the page show unseen tasks and corruptions, each in columns of their own."""

import csv
import io

import pytest
from made_up.generalization import beyond
from made_up.runs import make_run

from tsv_bench.benchmark.runs import load_correct, load_run, save_bits, save_run
from tsv_bench.data.corruptions.definitions import CORRUPTIONS
from tsv_bench.report.page import render_page
from tsv_bench.report.tables.table import build_tables
from tsv_bench.report.text.render import make_sheets, render_csv, render_markdown, render_terminal

pytestmark = pytest.mark.usefixtures("few_resamples")
METHODS = ("weight_average", "tsv_merge", "individual")


@pytest.fixture(scope="module")
def evaluated(few_resamples):
    return [beyond(method, corruptions=tuple(CORRUPTIONS)) for method in METHODS]


@pytest.fixture(scope="module")
def tables(evaluated):
    return build_tables(evaluated)


def test_a_run_is_read_as_it_was_saved(evaluated, tmp_path):
    run, correct = evaluated[1]
    path = save_run(run, correct, tmp_path)
    assert load_run(path) == run
    assert {n: list(bits) for n, bits in load_correct(path, run).items()} == {
        name: list(bits) for name, bits in correct.items()
    }
    save_bits(path.with_suffix(".npz"), correct | {"fog/digits": ~correct["fog/digits"]})
    with pytest.raises(ValueError, match="'fog/digits' has"):
        load_correct(path, run)


def test_unseen_means_stand_beside_those_of_merged_tasks(tables):
    [row] = [row for row in tables[0].rows if row.method == "tsv_merge"]
    first, second = make_sheets(tables)
    assert first.header == [
        "method", "absolute", "normalized", "unseen", "unseen normalized", "alpha", "sec",
        "Digits", "Land (unseen)", "Greek (unseen)",
    ]  # fmt: skip
    [cells] = [cells for cells in first.rows if cells[0] == "TSV-M"]
    assert cells[3].startswith(f"{100 * row.unseen.value:.1f} ±") and len(cells) == 10
    assert "Land, Greek: unseen" in first.caption
    assert second.title.endswith("corrupted images, severity 3")
    assert second.header[:4] == ["method", "as they are", "corrupted", "gaussian noise"]
    assert len(second.header) == len(second.rows[0]) == 3 + len(CORRUPTIONS)
    assert second.rows[1][2].startswith(f"{100 * row.corrupted[''].value:.1f} ±")
    assert "Land (unseen)" in render_markdown(tables)


def test_all_fits_in_a_terminal(tables):
    lines = render_terminal(tables).splitlines()
    assert max(map(len, lines)) <= 100
    for word in ("Greek (unseen)", "unseen normalized", "jpeg compression", "gaussian noise"):
        assert any(word in line for line in lines), word


def test_csv_has_fractions_with_bounds(tables):
    records = list(csv.DictReader(io.StringIO(render_csv(tables))))
    [record] = [r for r in records if r["method"] == "tsv_merge"]
    [row] = [row for row in tables[0].rows if row.method == "tsv_merge"]
    assert float(record["unseen"]) == row.unseen.value
    assert float(record["unseen_normalized_images_low"]) == row.unseen_normalized.images.low
    assert 0 <= float(record["unseen_accuracy_land"]) <= float(record["unseen_accuracy_land_high"])
    assert float(record["corrupted_mean"]) == row.corrupted[""].value
    assert float(record["corrupted_fog_images_high"]) == row.corrupted["fog"].images.high


def test_other_runs_have_no_such_columns():
    tables = build_tables([make_run(method) for method in METHODS])
    assert len(make_sheets(tables)) == 1
    assert "unseen" not in render_markdown(tables) + render_csv(tables)
    assert "corrupted" not in render_terminal(tables) + render_csv(tables)


def test_the_page_holds_both(evaluated, tables):
    page = render_page(evaluated, tables, make_sheets(tables))
    assert "corrupted images, severity 3" in page and "Greek (unseen)" in page
    assert f'"unseen_mean":{evaluated[0][0].unseen.absolute}' in page
