"""Runs of a folder become rows, and the notes say why others do not."""

from dataclasses import replace

import numpy as np
import pytest
from made_up.runs import LABELS, TASKS, make_run, make_vision_run, of_generation

from tsv_bench.benchmark import published
from tsv_bench.benchmark.runs import save_run
from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.table import build_tables, read_tables

pytestmark = pytest.mark.usefixtures("few_resamples")


def build(*evaluated):
    (table,) = build_tables(evaluated)
    return table


def everything(seeds=(0,), **changes):
    return [make_run(method, seed, **changes) for method in reversed(LABELS) for seed in seeds]


def test_rows_stand_in_the_reports_order_new_methods_before_individual():
    run, correct = make_run("tsv_merge")
    new = replace(run, method="iso_c", label="Iso-C")
    table = build((new, correct), *everything())
    assert [row.label for row in table.rows] == [*list(LABELS.values())[:-1], "Iso-C", "Individual"]
    assert table.notes == ()


def test_seeds_are_averaged():
    table = build(*everything(seeds=(2, 0, 1)))
    row = next(row for row in table.rows if row.method == "ties")
    runs = [make_run("ties", seed)[0] for seed in range(3)]
    assert row.seeds == (0, 1, 2)
    assert row.absolute.value == pytest.approx(np.mean([run.absolute for run in runs]))
    assert row.normalized.value == pytest.approx(np.mean([run.normalized for run in runs]))
    assert row.absolute.seeds and row.normalized.seeds
    assert row.accuracy["land"] == pytest.approx(np.mean([r.test["land"].accuracy for r in runs]))
    assert table.notes == ()


def test_comparisons_are_paired_on_the_seeds_both_have():
    table = build(*everything(seeds=(0, 1)), make_run("ties", 2))
    found = {c.text: c for c in table.comparisons}
    assert list(found) == [
        "Task Arithmetic - Weight average",
        "TSV-M - Task Arithmetic",
        "TIES - Task Arithmetic",
        "TSV-C / Individual",
    ]
    assert found["TIES - Task Arithmetic"].num_seeds == 2
    means = [np.mean([make_run(method, seed)[0].absolute for seed in (0, 1)])
             for method in ("ties", "task_arithmetic")]  # fmt: skip
    estimate = found["TIES - Task Arithmetic"].estimate
    assert estimate.value == pytest.approx(means[0] - means[1])
    assert any("not all rows" in note and "TIES 0, 1, 2" in note for note in table.notes)


@pytest.mark.parametrize("more", [(), (2,)])
def test_a_ratio_is_that_of_the_outcomes_on_the_seeds_both_have(more):
    """Where they are the seeds of the row, its normalized accuracy is the ratio already."""
    extra = [make_run("tsv_compress", seed) for seed in more]
    table = build(*everything(seeds=(0, 1)), *extra)
    first, second = (
        next(row for row in table.rows if row.method == method).correct_of((0, 1))
        for method in ("tsv_compress", "individual")
    )
    [ratio] = [c for c in table.comparisons if c.kind == "ratio"]
    assert ratio.estimate == statistics.normalized(first, second) and ratio.num_seeds == 2


def test_knobs_that_differ_stand_in_the_label():
    other = {"rank_fraction": None, "polar": "eigen"}
    table = build(*everything(), make_run("tsv_merge", knobs=other, fingerprint="b"))
    labels = [row.label for row in table.rows if row.method == "tsv_merge"]
    assert labels == ["TSV-M (polar=eigen)", "TSV-M (polar=svd)"]
    assert sum("TSV-M" in c.text for c in table.comparisons) == 2


def test_newest_of_several_runs_wins_and_a_note_says_so():
    old, correct = make_run("ties", created="2024-01-01T00:00:00+00:00", fingerprint="old")
    for group in ([make_run("ties"), (old, correct)], [(old, correct), make_run("ties")]):
        table = build(*group)
        assert [run.fingerprint for run in table.runs] == [make_run("ties")[0].fingerprint]
        assert any("TIES, seed 0: the newest" in n and "not old" in n for n in table.notes)


def test_runs_on_older_data_are_left_out_and_named():
    old, correct = make_run("ties", created="2024-01-01T00:00:00+00:00")
    old, _ = make_run("ties", created=old.created, data=old.data | {"land": "old"})
    table = build((old, correct), make_run("tsv_merge"))
    assert [row.method for row in table.rows] == ["tsv_merge"]
    assert any("left out TIES, seed 0" in note and "'land'" in note for note in table.notes)


def test_normalized_interval_needs_the_models_that_normalized():
    table = build(make_run("ties"))
    assert table.rows[0].normalized.images is None
    assert table.rows[0].normalized.value == make_run("ties")[0].normalized
    assert "tsv-bench method=individual" in table.notes[0]
    # Individual models that did not normalize the Run are no better than none.
    run, correct = make_run("ties")
    other = make_run("ties", normalizer={task: 1.0 for task in run.tasks})
    table = build(other, make_run("individual"))
    assert table.rows[0].normalized.images is None
    table = build(make_run("ties"), make_run("individual"))
    assert table.rows[0].normalized.images and not table.notes


def test_missing_normalizer_leaves_the_value_out():
    run, _ = make_run("ties")
    short = {task: a for task, a in run.normalizer.items() if task != "land"}
    table = build(make_run("ties", normalizer=short), make_run("individual"))
    assert np.isnan(table.rows[0].normalized.value)
    assert "TIES: no normalized accuracy" in table.notes[0] and "'land'" in table.notes[0]


def test_lost_bits_leave_the_intervals_out(tmp_path):
    for method in ("ties", "task_arithmetic", "individual"):
        path = save_run(*make_run(method), tmp_path)
        if method == "ties":
            path.with_suffix(".npz").unlink()
    (table,) = read_tables(tmp_path)
    row = table.rows[1]
    assert (row.method, row.absolute.images) == ("ties", None)
    assert row.absolute.value == make_run("ties")[0].absolute
    assert any("TIES: no intervals" in note for note in table.notes)


def test_images_of_another_run_are_not_taken_for_a_runs_own(tmp_path, caplog):
    """A kill between the two files of a Run that replaces another leaves such a pair."""
    for method in ("ties", "tsv_merge"):
        path = save_run(*make_run(method), tmp_path)
    other, correct = make_run("tsv_merge", seed=1)
    save_run(other, correct, tmp_path / "other")
    [there] = (tmp_path / "other").rglob("*.npz")
    path.with_suffix(".npz").write_bytes(there.read_bytes())
    (table,) = read_tables(tmp_path / "mini")
    images = {row.method: row.absolute.images for row in table.rows}
    assert images["tsv_merge"] is None and images["ties"] is not None
    assert "is of another Run: 'digits' has" in caplog.text
    assert any("TSV-M: no intervals" in note for note in table.notes)


def test_one_table_for_each_suite_and_selection_of_tasks(tmp_path):
    for changes in ({}, {"suite": "mini2", "tasks": TASKS[:2]}, {"backbone": "vit_b32"}):
        save_run(*make_run("ties", **changes), tmp_path)
    save_run(*make_run("ties", tasks=TASKS[:2], fingerprint="cut"), tmp_path)
    names = {table.name: len(table.tasks) for table in read_tables(tmp_path)}
    assert names == {"mini-mini2": 2, "mini-mini8": 2, "mini-mini8-2": 8, "vit_b32-mini8": 8}


@pytest.mark.parametrize("made", [True, False])
def test_empty_folder_says_how_to_make_a_run(tmp_path, made):
    folder = tmp_path if made else tmp_path / "runs"
    with pytest.raises(ValueError, match="no Run in .* tsv-bench") as raised:
        read_tables(folder)
    assert str(folder) in str(raised.value)
    assert ("does not exist" in str(raised.value)) == (not made)


def test_interval_of_a_row_is_that_of_its_images():
    run, correct = make_run("ties")
    expected = statistics.absolute({task: bits[None] for task, bits in correct.items()})
    assert build((run, correct)).rows[0].absolute == expected


def row_of(table, method="tsv_merge"):
    return next(row for row in table.rows if row.method == method)


def test_figures_of_the_same_checkpoints_give_differences():
    table = build(make_vision_run("tsv_merge"), make_vision_run("individual"))
    row = row_of(table)
    assert table.has_published and row.comparable
    assert row.published.absolute == 0.8586
    assert row.differences["absolute"] == pytest.approx(row.absolute.value - 0.8586)
    assert row.differences["normalized"] == pytest.approx(row.normalized.value - 0.9231)
    assert table.notes == ()
    assert len(table.published_notes) == 2, "whose they are, and what is known of the checkpoints"
    assert "2412.00081" in table.published_notes[0]
    assert "DTD saw its test images" in " ".join(table.published_notes[1].split())


@pytest.mark.parametrize("generation", ["finetune", "other", "fixed"])
def test_figures_of_other_checkpoints_give_none_and_a_note(generation):
    table = build(make_vision_run("tsv_merge", "vision14", generation=generation))
    row = row_of(table)
    assert row.published.generation == "original" and not row.comparable
    assert row.differences == {}
    [note] = [note for note in table.published_notes if "in brackets" in note]
    assert f"of original checkpoints beside ours of {generation}." in note


def test_one_task_of_other_checkpoints_is_enough_to_differ():
    run, correct = make_vision_run("tsv_merge")
    mixed = dict.fromkeys(run.tasks, "original") | {"dtd": "fixed"}
    table = build((replace(run, checkpoints=of_generation(run, mixed)), correct))
    assert row_of(table).generation == "fixed, original"
    assert row_of(table).differences == {}
    assert any("ours of fixed, original" in note for note in table.published_notes)


def test_seeds_of_other_checkpoints_differ_too():
    runs = [
        make_vision_run(seed=seed, generation=g) for seed, g in enumerate(("original", "other"))
    ]
    assert row_of(build(*runs)).differences == {}


def test_absolute_alone_is_compared_where_no_normalized_is_published():
    row = row_of(build(make_vision_run("tsv_merge", generation="fixed")))
    assert (row.published.absolute, row.published.normalized) == (0.8322, None)
    assert list(row.differences) == ["absolute"]
    run, correct = make_vision_run("tsv_merge", normalizer={})
    assert list(row_of(build((run, correct))).differences) == ["absolute"]


def test_other_knobs_than_the_papers_have_no_figure_beside_them():
    knobs = {"rank_fraction": 0.1, "polar": "svd"}
    table = build(make_vision_run(), make_vision_run(knobs=knobs, fingerprint="b"))
    figures = {row.label: row.published for row in table.rows}
    assert figures["TSV-M (rank_fraction=0.1)"] is None
    assert figures["TSV-M (rank_fraction=null)"].absolute == 0.8586
    [note] = [note for note in table.notes if "no published figure" in note]
    assert note.startswith("TSV-M (rank_fraction=0.1)") and "rank_fraction=null" in note


def test_other_tasks_under_the_suites_name_have_no_figures():
    tasks = (*published.suites()["vision8"][:7], "stl10")
    table = build(make_vision_run(tasks=tasks))
    assert not table.has_published and row_of(table).published is None
    assert any("of the 8 tasks of vision8" in note and "'stl10'" in note for note in table.notes)


def test_embedded_suites_know_nothing_of_published_figures():
    table = build(*everything())
    assert not table.has_published and table.published_notes == ()
    assert all(row.published is None for row in table.rows)


def test_a_published_normalizer_is_named():
    own, correct = make_vision_run("tsv_merge")
    run = replace(own, normalizer_source=published.normalizer_source())
    table = build((run, correct), make_vision_run("individual"))
    assert row_of(table).normalized.images is None
    assert row_of(table).normalized.value == run.normalized
    note = table.notes[0]
    assert note.startswith("TSV-M: normalized by accuracies of others (published, original")
    assert not any("method=individual" in note for note in table.notes)


def test_what_is_said_of_several_rows_is_said_once():
    notes = build(make_run("tsv_merge"), make_run("ties"), make_run("zero_shot")).notes
    [note] = notes
    assert note.startswith("Zero-shot, TIES, TSV-M: no image interval")
