"""Reports: each step is evaluated once, also by a process that goes on after a kill."""

import numpy as np
import pytest

from tsv_bench.benchmark.given.reports import Reports
from tsv_bench.state_dicts.steps.unfinished import Unfinished


class Counting:
    """Of each vector as many of four images are right as it holds."""

    def __init__(self):
        self.vectors = []

    def __call__(self, vector):
        self.vectors.append(vector)
        return {"a": np.arange(4) < vector["x"], "b": np.arange(2) < 1}


@pytest.mark.parametrize("kept", [True, False])
def test_steps_are_added_and_none_is_evaluated_twice(kept, tmp_path):
    unfinished, evaluate = Unfinished(tmp_path, "m") if kept else None, Counting()
    reports = Reports(evaluate, unfinished)
    reports.add("rounds", 0, {"x": 3})
    expected = {"steps": [0, 1], "images": {"a": 4, "b": 2}, "right": {"a": [3, 1], "b": [1, 1]}}
    assert reports.add("rounds", 1, {"x": 1}) == expected
    assert reports.add("rounds", 1, {"x": 4}) == expected and len(evaluate.vectors) == 2
    assert reports.add("others", 5, {"x": 0})["steps"] == [5]
    again = Reports(Counting(), unfinished).add("rounds", 2, {"x": 2})
    assert again["steps"] == ([0, 1, 2] if kept else [2])
    assert again["right"]["a"] == ([3, 1, 2] if kept else [2])


def test_a_report_of_another_run_is_not_taken(tmp_path):
    Reports(Counting(), Unfinished(tmp_path, "m")).add("rounds", 0, {"x": 3})
    found = Reports(Counting(), Unfinished(tmp_path, "n")).add("rounds", 1, {"x": 1})
    assert found["steps"] == [1]


def test_without_images_that_the_method_does_not_see_nothing_is_noted(caplog):
    calls = []
    reports = Reports(
        lambda vector: calls.append(vector) or {"a": np.ones(3), "b": np.ones(0)}, None
    )
    for step in range(3):
        assert reports.add("rounds", step, {"x": 1}) == {}
    assert len(calls) == 1 and caplog.text.count("sees all validation images of b") == 1
