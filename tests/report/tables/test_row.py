"""A row's properties follow from its Runs."""

import numpy as np
import pytest
from made_up.runs import make_run

from tsv_bench.report.tables.table import build_tables


def row_of(*evaluated):
    ((row,),) = (table.rows for table in build_tables(evaluated))
    return row


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ([{"task_known": True, "stored_bytes": 8}], True),
        ([{"task_known": False, "stored_bytes": 8}], False),
        ([{"task_known": False, "stored_bytes": None}], None),  # older than the field
        ([{"task_known": False, "stored_bytes": None}, {"task_known": True}], True),
        ([{"task_known": False, "stored_bytes": None}, {"stored_bytes": 8}], False),
    ],
)
def test_whether_the_task_must_be_known_is_said_by_any_run(changes, known):
    assert (
        row_of(*(make_run("ties", seed, **c) for seed, c in enumerate(changes))).task_known is known
    )


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
