"""Tables as text: they fit the width, and show percent where csv has fractions."""

import csv
import io
import re

import pytest
from made_up.runs import LABELS, TASKS, make_run

from tsv_bench.report.tables.table import build_tables
from tsv_bench.report.text.render import render_csv, render_markdown, render_terminal
from tsv_bench.report.text.runs import shorten
from tsv_bench.report.write_report import write_report

pytestmark = pytest.mark.usefixtures("few_resamples")

NAMES_OF_20 = (
    "SUN397", "Stanford Cars", "RESISC45", "EuroSAT", "SVHN", "GTSRB", "MNIST", "DTD",
    "Flowers102", "PCAM", "FER2013", "Oxford-IIIT Pet", "STL10", "CIFAR100", "CIFAR10",
    "Food101", "FashionMNIST", "EMNIST", "KMNIST", "RenderedSST2",
)  # fmt: skip


def tables_of(num_tasks=8, seeds=(0,), **changes):
    labels = {f"task{i}": label for i, label in enumerate(NAMES_OF_20[:num_tasks])}
    changes = {"tasks": tuple(labels), "num_images": 100} | changes
    evaluated = []
    for method in LABELS:
        for seed in seeds:
            run, correct = make_run(method, seed, **changes)
            run.tasks.update(labels)
            evaluated.append((run, correct))
    return build_tables(evaluated)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("num_tasks", [1, 2, 8, 14, 20])
def test_terminal_table_fits_and_is_whole(num_tasks, seeds):
    (table,) = tables_of(num_tasks, seeds)
    text = render_terminal([table])
    assert max(map(len, text.splitlines())) <= 100
    for row in table.rows:
        lines = [line for line in text.splitlines() if re.match(rf"{row.label} +[\d.]", line)]
        shown = re.findall(r"(?<!±)\b\d+\.\d\b", " ".join(lines))
        for accuracy in row.accuracy.values():
            shown.remove(f"{100 * accuracy:.1f}")  # ValueError when it is not there
        assert len(lines) == (1 if num_tasks <= 8 else 1 + -(-num_tasks // 8))


@pytest.mark.parametrize("layout", ["runs", "leaderboard", "paper"])
def test_every_layout_fits_the_terminal_and_uses_it(layout):
    tables = tables_of(20, (0, 1, 2))
    lines = {w: render_terminal(tables, w, layout).splitlines() for w in (60, 80, 100, 200)}
    for width, found in lines.items():
        assert min(width, 124) - 20 < max(map(len, found)) <= width, width  # paper: its caption
    assert len(lines[60]) > len(lines[80]) > len(lines[200])
    if layout == "runs":
        assert "Oxford-IIIT Pet" in "\n".join(lines[200])  # cut on a narrower one


def test_labels_of_tasks_may_be_short():
    text = render_terminal(build_tables([make_run("ties", tasks=("a", "dtd"))]))
    assert re.search(r"sec +A +Dtd$", text, re.MULTILINE)


def test_long_labels_of_methods_wrap_and_stay_distinct():
    knobs = {"rank_fraction": 0.123, "polar": "eigen", "iterations": 10}
    evaluated = [make_run("tsv_merge"), make_run("tsv_merge", knobs=knobs, fingerprint="b")]
    text = render_terminal(build_tables(evaluated))
    assert max(map(len, text.splitlines())) <= 100
    for part in ("rank_fraction=0.123", "polar=eigen", "polar=svd", "iterations=null"):
        assert part in text


def test_shortened_labels_stay_distinct_and_are_explained():
    assert shorten(["Digits", "Cars"], 5) == ["Digit", "Cars"]
    assert shorten(["CIFAR10", "DTD", "CIFAR100"], 5) == ["CIF~1", "DTD", "CIF~2"]
    for width in range(5, 16):
        assert len(set(shorten(NAMES_OF_20, width))) == 20
    text = render_terminal(tables_of(seeds=(0, 1, 2)))
    assert re.search(r"\bRESIS\w* = RESISC45", text)


def test_header_says_what_the_numbers_are():
    (table,) = tables_of(seeds=(0, 1), commit="abcdef-dirty", num_images=250)
    for text in (render_terminal([table]), render_markdown([table])):
        flat = " ".join(text.split())
        assert "mini on mini8, 8 tasks" in flat
        for part in ("2,000 test images", "seeds 0, 1;", "abcdef-dirty", "checkpoints: finetune"):
            assert part in flat


def test_percent_in_the_text_and_fractions_in_csv():
    (table,) = tables_of(seeds=(0, 1, 2))
    records = csv.DictReader(io.StringIO(render_csv([table])))
    for row, record in zip(table.rows, records, strict=True):
        assert record["label"] == row.label
        # Exact: csv holds the shortest text that gives the same float back.
        assert float(record["absolute"]) == row.absolute.value
        assert float(record["absolute_images_low"]) == row.absolute.images.low
        assert float(record["normalized_seeds_high"]) == row.normalized.seeds.high
        assert float(record["accuracy_task3"]) == row.accuracy["task3"]
        assert float(record["accuracy_task3_low"]) == row.accuracy_intervals["task3"].low
        assert float(record["seconds"]) == row.seconds
        assert 0 <= float(record["absolute"]) <= 1
        lines = render_markdown([table]).splitlines()
        (line,) = [line for line in lines if line.startswith(f"| {row.label} |")]
        half = (row.absolute.images.high - row.absolute.images.low) / 2
        assert f"| {100 * row.absolute.value:.1f} ±{100 * half:.1f} |" in line
        assert f"{100 * row.accuracy['task3']:.1f}" in line


def test_csv_of_several_suites_has_the_columns_of_all():
    two = make_run("ties", suite="mini2", tasks=TASKS[:2])
    one = make_run("ties", suite="mini1", tasks=("greek",))
    records = list(csv.DictReader(io.StringIO(render_csv(build_tables([two, one])))))
    assert [record["suite"] for record in records] == ["mini1", "mini2"]
    assert records[0]["accuracy_digits"] == "" and float(records[1]["accuracy_digits"]) > 0
    assert records[0]["absolute_seeds_low"] == "", "one seed has no interval over seeds"


def test_paired_differences_are_written_out():
    (table,) = tables_of(seeds=(0, 1, 2))
    number = r"-?\d+\.\d"
    bounds = rf"\[{number}, {number}\]"
    for text in (render_terminal([table]), render_markdown([table])):
        assert re.search(
            rf"TSV-M - Task Arithmetic: \+{number} {bounds} over images, {bounds} over 3 seeds",
            text,
        )
        assert re.search(rf"TSV-C / Individual: {number} {bounds} over images", text)
    assert "over 1 seed" not in render_terminal(tables_of())


def test_alphas_of_several_seeds_are_a_range():
    (table,) = tables_of(seeds=(0, 1, 2))
    row = next(row for row in table.rows if row.method == "tsv_merge")
    assert len(set(row.alphas)) > 1
    assert f" {min(row.alphas):.2f}-{max(row.alphas):.2f} " in render_terminal([table])


def test_notes_are_in_both_texts():
    tables = build_tables([make_run("ties")])
    for text in (render_terminal(tables), render_markdown(tables)):
        assert "tsv-bench method=individual" in " ".join(text.split())


def test_report_writes_what_it_says(tmp_path):
    paths = write_report(tables_of(3), tmp_path / "out")
    names = ["table.md", "table.csv", "table.tex", "runs.csv", "alphas.csv"]
    plots = ("methods", "tasks", "radar", "alpha")
    names += [f"mini-mini8-{plot}.{end}" for plot in plots for end in ("svg", "png")]
    names.append("figures.md")
    assert [path.name for path in paths] == names
    assert all(path.stat().st_size > 0 for path in paths)
    assert paths[5].read_text(encoding="utf-8").startswith("<?xml")
    assert paths[6].read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("blank_figures")
def test_no_alpha_plot_where_every_alpha_is_fixed(tmp_path):
    paths = write_report(build_tables([make_run("individual")]), tmp_path)
    assert not any("-alpha." in path.name for path in paths)
    assert "No figure 'alpha': no method on mini8 searched alpha" in paths[-1].read_text()
