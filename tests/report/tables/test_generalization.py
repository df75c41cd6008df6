"""Means of unseen tasks and of corrupted images stand apart from those of the merged tasks."""

from dataclasses import replace

import numpy as np
import pytest
from made_up.generalization import beyond

from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.generalization import unseen_accuracy, unseen_intervals
from tsv_bench.report.tables.table import build_tables

pytestmark = pytest.mark.usefixtures("few_resamples")

METHODS, SEEDS = ("weight_average", "tsv_merge", "individual"), (0, 1)


@pytest.fixture(scope="module")
def evaluated():
    return [beyond(method, seed) for method in METHODS for seed in SEEDS]


def rows_of(evaluated):
    [table] = build_tables(evaluated)
    return table, {row.method: row for row in table.rows}


def of_seeds(evaluated, method, name):
    return np.stack([bits[name] for run, bits in evaluated if run.method == method])


def test_means_of_unseen_tasks_have_intervals(evaluated):
    table, rows = rows_of(evaluated)
    assert table.unseen == {"land": "Land", "greek": "Greek"} and list(table.tasks) == ["digits"]
    assert table.title == "mini on mini8, 1 task, 2 unseen"
    own, merged = (
        {task: of_seeds(evaluated, method, task) for task in table.unseen}
        for method in ("individual", "tsv_merge")
    )
    row = rows["tsv_merge"]
    assert row.unseen == statistics.absolute(merged)
    assert row.unseen_normalized == statistics.normalized(merged, own)
    assert row.absolute == statistics.absolute(
        {"digits": of_seeds(evaluated, "tsv_merge", "digits")}
    )
    assert rows["individual"].unseen_normalized.value == 1
    slow = [(replace(run, seconds=run.seconds | {"unseen": 9, "corrupted": 9}), bits)
            for run, bits in evaluated]  # fmt: skip
    assert rows_of(slow)[1]["tsv_merge"].seconds == row.seconds
    assert unseen_accuracy(row) == {task: merged[task].mean() for task in merged}
    assert unseen_intervals(row)["land"] == statistics.wilson(merged["land"].mean(), 40)


def test_differences_on_unseen_tasks_are_paired():
    table, rows = rows_of([beyond(m) for m in ("task_arithmetic", "weight_average", "individual")])
    found = {c.text: c.estimate for c in table.comparisons}
    one, other = (rows[m].unseen_correct for m in ("task_arithmetic", "weight_average"))
    assert list(found) == [
        "Task Arithmetic - Weight average", "Task Arithmetic - Weight average, unseen tasks"
    ]  # fmt: skip
    assert found["Task Arithmetic - Weight average, unseen tasks"] == statistics.difference(
        one, other
    )


def test_runs_on_other_unseen_images_are_left_out(evaluated):
    run, bits = evaluated[0]
    other = replace(run, seed=5, data=run.data | {"land": "other"}, created="2020-01-01T00:00:00")
    table, _ = rows_of([(run, bits), (other, bits)])
    assert len(table.runs) == 1 and any("on task 'land'" in note for note in table.notes)


def test_corruptions_are_means_over_tasks_and_share_their_images(evaluated):
    _, rows = rows_of(evaluated)
    row = rows["tsv_merge"]
    assert list(row.corrupted) == ["fog", "contrast", ""]
    bits = [
        {"digits": of_seeds(evaluated, "tsv_merge", f"{n}/digits")} for n in ("fog", "contrast")
    ]
    assert row.corrupted["fog"] == statistics.absolute(bits[0])
    mean = row.corrupted[""]
    assert mean == statistics.over_conditions(bits)
    assert mean.value == pytest.approx(
        np.mean([row.corrupted[n].value for n in ("fog", "contrast")])
    )


def test_what_is_lost_or_normalized_otherwise_has_no_interval_over_images(evaluated):
    lost = [(run, None if run.method == "tsv_merge" else bits) for run, bits in evaluated]
    _, rows = rows_of(lost)
    row = rows["tsv_merge"]
    runs = [run for run, _ in evaluated if run.method == "tsv_merge"]
    assert row.unseen.value == pytest.approx(np.mean([run.unseen.absolute for run in runs]))
    assert row.corrupted[""].value == pytest.approx(np.mean([r.corrupted.absolute for r in runs]))
    assert row.unseen.images is row.corrupted["fog"].images is row.corrupted[""].images is None
    assert row.unseen.seeds and row.corrupted[""].seeds

    published = [(replace(run, normalizer_source="published: x"), bits) for run, bits in evaluated]
    alone = [pair for pair in evaluated if pair[0].method == "tsv_merge"]
    for others in (published, alone):
        row = rows_of(others)[1]["tsv_merge"]
        assert row.unseen.images and row.unseen_normalized.images is None


def test_rows_without_are_as_they_were(evaluated):
    plain = [(replace(run, unseen=None, corrupted=None), bits) for run, bits in evaluated]
    table, rows = rows_of(plain)
    assert table.unseen == {} and table.title == "mini on mini8, 1 task"
    assert all(row.unseen is None and row.corrupted == {} for row in table.rows)


def test_variants_of_unseen_tasks_are_noted(evaluated):
    run, bits = evaluated[0]
    [table] = build_tables([(replace(run, variants={"land": "turned"}), bits)])
    assert "Land: turned." in table.notes
