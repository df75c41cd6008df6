"""Tidy csv: pandas reads each in one line, and every number is the Run's."""

import io

import pandas as pd
import pytest
from made_up.runs import TASKS, make_run

from tsv_bench.report.tables.table import build_tables
from tsv_bench.report.text.tidy import ALPHAS, alphas_csv, runs_csv

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def evaluated():
    chosen = {task: {"mask_lambda": 0.2} for task in TASKS}
    made = [make_run(method, seed) for method in ("tsv_merge", "individual") for seed in (0, 1)]
    masks = make_run("ties", 0, alpha=1.0, task_knobs=chosen, stored_bytes=7,
                     knobs={"mask_lambda": None, "exclude": ["a", "b"], "fast": True})  # fmt: skip
    return [*made, masks, make_run("ties", 0, fingerprint="old", created="2024-01-01T00:00:00Z")]


@pytest.fixture(scope="module")
def tables(evaluated):
    return build_tables(evaluated)


def read(text):
    return pd.read_csv(io.StringIO(text))


def test_a_row_for_each_run_and_task(tables, evaluated):
    runs = read(runs_csv(tables))
    assert len(runs) == 6 * len(TASKS)
    assert not runs.duplicated(["fingerprint", "task"]).any()
    for run, _ in evaluated:
        own = runs[runs.fingerprint == run.fingerprint].set_index("task")
        assert own.accuracy.to_dict() == {t: score.accuracy for t, score in run.test.items()}
        assert (own.correct / own.total).to_dict() == own.accuracy.to_dict()
        assert own.normalized.mean() == pytest.approx(run.normalized, abs=1e-15)
        assert set(own.seed) == {run.seed} and set(own.alpha) == {run.alpha}
    pivot = runs.pivot_table(index="label", columns="task", values="accuracy")
    tsv = [run for run, _ in evaluated if run.method == "tsv_merge"]
    mean = sum(run.test["land"].accuracy for run in tsv) / 2
    assert pivot.loc["TSV-M", "land"] == pytest.approx(mean, abs=1e-15)


def test_a_column_for_each_knob(tables):
    text = runs_csv(tables)
    runs = read(text)
    assert runs.knob_polar.dropna().unique().tolist() == ["svd"]
    masks = runs[runs.alpha_at_edge]
    assert set(masks.method) == {"ties"}
    assert set(masks.chosen_mask_lambda) == {0.2} and runs.chosen_mask_lambda.count() == len(masks)
    assert set(masks.knob_exclude) == {'["a", "b"]'} and set(masks.knob_fast) == {True}
    # Unset is null; what a method does not have is empty.
    raw = pd.read_csv(io.StringIO(text), keep_default_na=False)
    assert set(raw[raw.knob_fast != ""].knob_mask_lambda) == {"null"}
    assert set(raw[raw.method == "individual"].knob_mask_lambda) == {""}
    assert set(masks.stored_bytes) == {7} and runs.stored_bytes.count() == len(masks)


def test_the_curves_of_alpha(tables, evaluated):
    alphas = read(alphas_csv(tables))
    for run, _ in evaluated:
        own = alphas[alphas.fingerprint == run.fingerprint]
        curve = list(zip(own.alpha, own.validation_normalized, strict=True))
        assert curve == [(point["alpha"], point["normalized"]) for point in run.alpha_curve]
        assert own[own.chosen].alpha.tolist() == ([run.alpha] if run.alpha_curve else [])


def test_without_a_search_the_columns_are_there():
    alphas = read(alphas_csv(build_tables([make_run("individual")])))
    assert list(alphas.columns) == list(ALPHAS) and alphas.empty
