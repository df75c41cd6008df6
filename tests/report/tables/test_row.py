"""A row's properties follow from its Runs."""

import numpy as np
import pytest
from made_up.runs import make_run, router_scores

from tsv_bench.report.tables.table import build_tables


def row_of(*evaluated):
    ((row,),) = (table.rows for table in build_tables(evaluated))
    return row


@pytest.mark.parametrize(
    ("changes", "served"),
    [
        ([{"task_known": True, "stored_bytes": 8}], "own"),
        ([{"task_known": False, "stored_bytes": 8}], "one"),
        ([{"task_known": False, "stored_bytes": None}], None),  # older than the field
        ([{"task_known": False, "stored_bytes": None}, {"task_known": True}], "own"),
        ([{"task_known": False, "stored_bytes": None}, {"stored_bytes": 8}], "one"),
        ([{"router": router_scores(0.9, 0.8, 0.7), "stored_bytes": 8}], "routed"),
    ],
)
def test_what_tasks_are_served_is_said_by_any_run(changes, served):
    small = {"tasks": ("digits", "signs"), "num_images": 10}
    row = row_of(*(make_run("ties", seed, **small, **c) for seed, c in enumerate(changes)))
    assert row.served == served
    found = row.router("found")
    assert found == ({"digits": 0.9, "signs": 0.9} if served == "routed" else None)


def test_bytes_are_of_a_task_and_unknown_where_one_run_does_not_say():
    sized = make_run("ties", stored_bytes=800)
    assert row_of(sized, make_run("ties", 1, stored_bytes=1600)).stored_per_task == 150
    assert row_of(sized, make_run("ties", 1)).stored_per_task is None


def test_the_ends_of_the_scale_are_references():
    assert (
        row_of(make_run("zero_shot")).is_reference and row_of(make_run("individual")).is_reference
    )
    assert not row_of(make_run("weight_average")).is_reference


def test_correctness_of_some_seeds():
    runs = [make_run("ties", seed) for seed in range(3)]
    found = row_of(*runs).correct_of([2, 0])["land"]
    np.testing.assert_array_equal(found, [runs[2][1]["land"], runs[0][1]["land"]])
