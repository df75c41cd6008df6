"""Swapped, damaged and repeated checkpoints are noticed in a Run and below its table."""

from dataclasses import replace

import pytest
from made_up.runs import TASKS, make_run

from tsv_bench.benchmark.doubts import MOST, doubts, doubts_of
from tsv_bench.report.tables.table import build_tables
from tsv_bench.report.text.render import render_markdown, render_terminal
from tsv_bench.scores import Score


def run(method="tsv_merge", **changes):
    return replace(make_run(method)[0], **changes)


def test_results_as_they_are_meant_raise_no_doubt():
    methods = ("zero_shot", "task_arithmetic", "tsv_merge", "individual")
    assert doubts_of([run(method) for method in methods]) == []
    assert doubts(run(normalized=MOST)) == []


def test_more_than_the_tasks_own_models_is_doubted():
    """Two swapped checkpoints gave 146%."""
    [found] = doubts(run(normalized=1.46))
    assert found.startswith("TSV-M has 146% of the accuracy") and "swapped or damaged?" in found


def test_a_checkpoint_that_is_given_twice_is_doubted():
    repeated = run().checkpoints | {task: {"sha256": "ab"} for task in list(TASKS)[:2]}
    [found] = doubts(run(checkpoints=repeated))
    labels = [run().tasks[task] for task in list(TASKS)[:2]]
    assert found == f"{labels[0]} and {labels[1]} have the same checkpoint."


@pytest.fixture
def worse():
    """Individual models of which one has half of the images right that the pretrained has."""
    zero_shot, individual = make_run("zero_shot"), make_run("individual")
    task = next(iter(TASKS))
    before = zero_shot[0].test[task]
    score = Score(accuracy=before.accuracy / 2, correct=before.correct // 2, total=before.total)
    return zero_shot, (replace(individual[0], test=individual[0].test | {task: score}), None)


def test_a_model_that_fine_tuning_made_worse_is_doubted_below_the_table(worse):
    [found] = doubts_of([run for run, _ in worse])
    label = worse[0][0].tasks[next(iter(TASKS))]
    assert found.startswith(f"the fine-tuned model of {label} is worse on it than the pretrained")
    assert doubts_of([worse[0][0], replace(worse[1][0], seed=1)]) == [], "other fine-tunings"
    tables = build_tables(worse)
    for render in (render_terminal, render_markdown):
        text = " ".join(render(tables).split())
        assert found in text
