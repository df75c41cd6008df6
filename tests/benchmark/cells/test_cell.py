"""Cells of the benchmark have the fingerprints of the committed Runs and find their Runs again."""

import os
from dataclasses import replace
from pathlib import Path
from shutil import copy

import pytest
from stand_ins.configurations import composed

from tsv_bench.benchmark.runs import load_run
from tsv_bench.cli.work.bench import make_cell

RESULTS = Path(__file__).parents[3] / "results"


def make(method="tsv_merge", *overrides):
    return make_cell(composed("bench", "suite=mini8", f"method={method}", *overrides), ["cpu"])


def file_of(cell, results="embedded"):
    name = f"{cell.method.name}-{cell.fingerprint}.json"
    return RESULTS / results / "runs" / cell.backbone.name / cell.suite / name


@pytest.mark.parametrize(
    "results, arguments",
    [("embedded", ["tsv_merge"]), ("leaderboard", ["tall_mask_ta", "seed=2"])],  # a knob by task
)
def test_a_cell_has_the_settings_of_its_committed_run(results, arguments):
    cell = make(*arguments)
    run = load_run(file_of(cell, results))
    assert cell.settings == run.settings and cell.fingerprint == run.fingerprint
    assert (cell.method.knobs, cell.seed) == (run.knobs, run.seed)


def test_only_what_may_change_a_result_changes_the_fingerprint():
    cell = make()
    evaluation, source, method = cell.evaluation, cell.source, cell.method
    changed = [
        replace(cell, normalizer="published"),
        replace(cell, evaluation=replace(evaluation, patience=3)),
        replace(cell, evaluation=replace(evaluation, precision="bfloat16")),
        replace(cell, source=replace(source, seed=1)),
        replace(cell, method=replace(method, knobs=method.knobs | {"polar": "other"})),
    ]
    assert len({c.fingerprint for c in (cell, *changed)}) == 6
    same = [
        replace(cell, runs=Path("elsewhere")),
        replace(cell, evaluation=replace(evaluation, devices=("cuda",), batch_size=7)),
    ]
    assert {c.fingerprint for c in same} == {cell.fingerprint}


@pytest.fixture
def cell(tmp_path):
    """A cell with its Run, copied from the committed ones, in its folder."""
    cell = replace(make(), runs=tmp_path)
    cell.folder.mkdir(parents=True)
    for suffix in (".json", ".npz"):
        copy(file_of(cell).with_suffix(suffix), cell.folder)
    return cell


def test_a_finished_run_is_found(cell):
    assert cell.finished() == cell.folder / file_of(cell).name
    assert replace(cell, seed=1, source=replace(cell.source, seed=1)).finished() is None
    assert replace(cell, suite="mini14").finished() is None


def test_what_a_kill_left_beside_a_finished_run_goes(cell):
    path, unfinished = cell.finished(), cell.unfinished({})
    unfinished.keep("a", {})  # by overwrite=true, since the Run was made
    assert cell.finished() == path and unfinished.kept("a") is not None
    path.touch()
    os.utime(unfinished.folder, (2**32, 2**32))  # the kill came in the middle of its removal
    assert cell.finished() == path and not unfinished.folder.exists()


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_run_without_its_correctness_is_made_again(cell, harm, caplog):
    path = cell.folder / file_of(cell).with_suffix(".npz").name
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    assert cell.finished() is None
    assert f"cannot read per-image correctness from {path}" in caplog.text
    assert "Evaluating again." in caplog.text
