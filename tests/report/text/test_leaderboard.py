"""The leaderboard: blocks, places, what methods take, and the files of the command."""

import csv
import io
from dataclasses import replace

import pytest
from made_up.runs import LABELS, TASKS, make_run, router_scores
from stand_ins.commands import tsv

from tsv_bench.benchmark.runs import Seen, save_run
from tsv_bench.report.plots.accuracies import _entries
from tsv_bench.report.tables.table import build_tables
from tsv_bench.report.text.leaderboard import BLOCKS, REFERENCES, SERVED, in_order
from tsv_bench.report.text.render import (
    make_sheets,
    render_csv,
    render_latex,
    render_markdown,
    render_terminal,
)

pytestmark = pytest.mark.usefixtures("few_resamples")

ONE, ROUTED, OWN = SERVED.values()
MASKS = {"task_known": True, "stored_bytes": 8_000_000, "peak_memory": 2_500_000_000}


def masks(seed=0, **changes):
    run, correct = make_run("ties", seed, **(MASKS | {"fingerprint": f"m{seed}"} | changes))
    return replace(run, method="tall_mask", label="TALL mask"), correct


def table_of(*more, seeds=(0,)):
    runs = [make_run(method, seed) for method in LABELS for seed in seeds]
    [table] = build_tables([*runs, *more])
    return table


@pytest.fixture(scope="module")
def of_three_seeds():
    return table_of(*(masks(seed) for seed in range(3)), seeds=(0, 1, 2))


def lines_of(table):
    """Return label -> cells of the sheet's rows; headings have no cells."""
    [sheet] = make_sheets([table], "leaderboard")
    return {row[0].strip(): list(filter(None, row[1:])) for row in sheet.rows}


def test_blocks_and_the_best_first():
    table = table_of(masks())
    names = [name for name in lines_of(table)]
    assert [name for name in names if name in BLOCKS] == [ONE, OWN, REFERENCES]
    merged, told, references = (names.index(name) for name in (ONE, OWN, REFERENCES))
    value = {row.label: row.absolute.value for row in table.rows}
    for start, stop in ((merged, told), (told, references), (references, len(names))):
        values = [value[name] for name in names[start + 1 : stop]]
        assert values == sorted(values, reverse=True) and values
    assert set(names[told + 1 : references]) == {"TSV-C", "TALL mask"}
    assert set(names[references + 1 :]) == {"Zero-shot", "Individual"}
    assert [row.label for row in in_order(table)] == [n for n in names if n not in BLOCKS]


def test_methods_that_saw_data_stand_apart_and_every_layout_says_which():
    passes = {"forward_passes": 64, "backward_passes": 0, "seconds": 1.5}
    seen = {
        "ties": Seen(split="val", images=32, labels=False, **passes),
        "task_arithmetic": Seen(split="train", images=256, labels=True, **passes),
        "tsv_compress": Seen(split="test", images=16, labels=False, **passes),
    }
    runs = [make_run(m) if m not in seen else make_run(m, seen=seen[m]) for m in LABELS]
    [table] = build_tables(runs)
    lines = lines_of(table)
    headings = [name for name in lines if name in BLOCKS]
    assert headings == [
        "one model for all tasks", "one model for all tasks, unlabelled val",
        "one model for all tasks, train", "one for each task, test-time", "references",
    ]  # fmt: skip
    data = {"TIES": "32 unlabelled val", "Task Arithmetic": "256 labelled train",
            "TSV-C": "16 unlabelled test-time", "TSV-M": "none"}  # fmt: skip
    for layout in ("leaderboard", "runs"):
        [sheet] = make_sheets([table], layout)
        assert sheet.header[:2] == ["method", "data"]
        cells = {row[0].strip(): row[1] for row in sheet.rows}
        assert {label: cells[label] for label in data} == data
        records = csv.DictReader(io.StringIO(render_csv([table], layout)))
        assert data.items() <= {r["label"]: r["data"] for r in records}.items()
    labels = [label for label, _ in _entries(list(table.rows))]
    assert "TIES, sees 32 unlabelled val" in labels and "TSV-M" in labels


def test_methods_with_a_router_stand_between_and_the_router_is_noted():
    small = {"tasks": ("digits", "signs"), "num_images": 10}
    router = router_scores(0.9, 0.8, 0.7)
    runs = [
        make_run("ties", **small),
        make_run("tsv_merge", **small, router=router),
        make_run("tsv_compress", **small),
    ]
    [table] = build_tables(runs)
    lines = list(lines_of(table))
    assert [name for name in lines if name in BLOCKS] == [ONE, ROUTED, OWN]
    assert lines[lines.index(ROUTED) + 1] == "TSV-M"
    assert (
        "TSV-M: its router finds the task of 90.0% of the images (least of Digits, 90.0%). With "
        "every image sent to its own task's expert 80.0% are right; with the head of the task "
        "found, too, 70.0%."
    ) in table.notes
    record = next(
        r for r in csv.DictReader(io.StringIO(render_csv([table], "leaderboard")))
        if r["label"] == "TSV-M"
    )  # fmt: skip
    found = [float(record[f"router_{kind}"]) for kind in ("found", "oracle", "head_found")]
    assert found == [0.9, 0.8, 0.7] and record["block"] == ROUTED


def test_a_block_without_rows_has_no_heading():
    [table] = build_tables([make_run("ties"), make_run("individual")])
    assert OWN not in lines_of(table) and ONE in lines_of(table)


def test_intervals_are_over_images_and_over_seeds(of_three_seeds):
    table = of_three_seeds
    row = next(row for row in table.rows if row.method == "tsv_merge")
    absolute, seeds, normalized, normalized_seeds, alpha, *_ = lines_of(table)["TSV-M"]

    def half(interval):
        return f"±{50 * (interval.high - interval.low):.1f}"

    assert absolute == f"{100 * row.absolute.value:.1f} {half(row.absolute.images)}"
    assert normalized == f"{100 * row.normalized.value:.1f} {half(row.normalized.images)}"
    assert seeds == half(row.absolute.seeds) and normalized_seeds == half(row.normalized.seeds)
    assert alpha == f"{min(row.alphas):.2f}-{max(row.alphas):.2f}"
    assert lines_of(table_of())["TSV-M"][1] == "-", "one seed has no interval over seeds"


def test_what_a_method_takes():
    seconds = {"merge": 2.0, "alpha": 50.0, "test": 1.0}
    runs = [masks(0, seconds=seconds), masks(1, seconds=seconds | {"merge": 4.0}, stored_bytes=None,
                                             peak_memory=3_000_000_000)]  # fmt: skip
    assert lines_of(table_of(runs[0]))["TALL mask"][-3:] == ["2.0", "2.50", "1.0"]
    # The mean of the seconds, the largest memory, and no size, since one Run does not say it.
    assert lines_of(table_of(*runs))["TALL mask"][-3:] == ["3.0", "3.00", "-"]
    unmerged = masks(0, seconds={"test": 1.0})
    assert lines_of(table_of(unmerged))["TALL mask"][-3] == "-"


def test_knobs_chosen_for_each_task_are_in_a_note():
    chosen = [{task: {"mask_lambda": 0.2 + 0.1 * (task == "land") * seed} for task in TASKS}
              for seed in (0, 1)]  # fmt: skip
    [sheet] = make_sheets([table_of(masks(task_knobs=chosen[0]))], "leaderboard")
    [note] = [note for note in sheet.notes if "mask_lambda" in note]
    assert note.startswith("TALL mask: mask_lambda chosen for each task: Digits 0.2, Street 0.2")
    run, _ = masks()
    by_suite = {"method": run.settings.get("method", {}) | {"by": "suite"}}
    [sheet] = make_sheets(
        [table_of(masks(task_knobs=chosen[0], settings=run.settings | by_suite))], "leaderboard"
    )
    [note] = [note for note in sheet.notes if "mask_lambda" in note]
    assert note == "TALL mask: mask_lambda chosen for the suite: 0.2."
    both = [masks(seed, task_knobs=chosen[seed]) for seed in (0, 1)]
    [sheet] = make_sheets([table_of(*both)], "leaderboard")
    [note] = [note for note in sheet.notes if "mask_lambda" in note]
    assert "chosen for each task, seeds 0/1: Digits 0.2, " in note and "Land 0.2/0.3" in note


def test_the_order_is_compared_with_the_published_one(of_three_seeds):
    """In the made-up levels only TIES and Task Arithmetic are the other way round."""
    table = of_three_seeds
    value = {row.method: row.absolute.value for row in table.rows}
    assert value["weight_average"] < value["ties"] < value["task_arithmetic"] < value["tsv_merge"]
    [sheet] = make_sheets([table], "leaderboard")
    [note] = [n for n in sheet.notes if "published one on ViT-B/32, 8 tasks, original" in n]
    # Four methods: 5 pairs agree, 1 does not; 8 of the 24 orders are as far from no order.
    assert "tau-b +0.67 (p = 0.3333, exact) over the 4 methods of one model" in note
    assert "over all 7 that both have. 1 of 21 pairs stand the other way round here" in note
    assert "1 of them beyond" in note and "Task Arithmetic above TIES (+0.8 [" in note
    assert "published -4.3)" in note
    assert any(n.startswith("original checkpoints: ") and "2412.00081" in n for n in sheet.notes)


def test_few_methods_have_nothing_to_compare():
    [table] = build_tables([make_run("ties"), make_run("individual")])
    [sheet] = make_sheets([table], "leaderboard")
    assert any("fewer than three of its methods" in note for note in sheet.notes)


def test_csv_has_the_leaderboards_order_and_fractions():
    table = table_of(masks(), seeds=(0, 1))
    records = list(csv.DictReader(io.StringIO(render_csv([table], "leaderboard"))))
    assert [record["label"] for record in records] == [row.label for row in in_order(table)]
    assert [int(record["place"]) for record in records] == list(range(1, len(records) + 1))
    [record] = [record for record in records if record["method"] == "tall_mask"]
    assert record["block"] == OWN
    assert float(record["stored_bytes_per_task"]) == 1_000_000
    assert int(record["peak_memory_bytes"]) == 2_500_000_000
    for row, record in zip(in_order(table), records, strict=True):
        assert float(record["accuracy_land_low"]) == row.accuracy_intervals["land"].low
        low, high = (float(record[f"accuracy_land_{end}"]) for end in ("low", "high"))
        assert 0 <= low <= row.accuracy["land"] <= high <= 1


def test_texts_hold_the_same_rows_and_fit(of_three_seeds):
    tables = [of_three_seeds]
    shown = render_terminal(tables, layout="leaderboard")
    assert max(map(len, shown.splitlines())) <= 100
    written, tex = (render(tables, "leaderboard") for render in (render_markdown, render_latex))
    for text in (shown, written, tex):
        parts = [text.index(name) for name in (ONE, OWN, REFERENCES)]
        assert parts == sorted(parts)
        for row in in_order(tables[0]):
            assert text.index(f"{row.label} ") > parts[0]
    assert "| **one for each task** |" in written
    assert r"\multicolumn{9}{l}{\textit{references}}" in tex


def test_the_command_prints_and_writes(tmp_path):
    for run, correct in [make_run(method) for method in LABELS]:
        save_run(run, correct, tmp_path / "runs")
    result = tsv(tmp_path, "report", "layout=leaderboard", "paths.report=out")
    assert result.code == 0, result.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"leaderboard.md", "leaderboard.csv", "leaderboard.tex"} <= names
    assert not any(name.startswith("table") for name in names)
    assert "mini on mini8, 8 tasks: leaderboard" in result.out
    wrong = tsv(tmp_path, "report", "layout=leader")
    assert wrong.code == 1 and "there are: runs, paper, leaderboard" in wrong.err
