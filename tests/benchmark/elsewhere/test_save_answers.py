"""Runs of answers that were collected elsewhere stand in tables and comparisons as any."""

import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from made_up import adapter_files
from made_up.merges import made, write_checkpoints

from tsv_bench.benchmark.elsewhere import Answers, save_answers
from tsv_bench.benchmark.runs import find_runs, load_correct
from tsv_bench.report.page.packed_runs import pack_runs
from tsv_bench.report.tables.table import build_tables, read_evaluated
from tsv_bench.report.tables.two_methods import compare
from tsv_bench.report.text.render import render_markdown

RUN = {"model": "tiny", "suite": "two", "labels": {"a": "Task A"}}
CHECKPOINTS = {name: f"{name}.safetensors" for name in ("a", "b")}


def answers(seed, level, tasks=("a", "b"), **more):
    rng = np.random.default_rng(seed)
    return Answers(correct={task: rng.uniform(size=40) < level for task in tasks}, **more)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Individual models, and two merges that differ in alpha alone; the folder of the Runs."""
    monkeypatch.chdir(tmp_path)
    write_checkpoints(tmp_path)
    checkpoints = {"pretrained": "base.safetensors", **CHECKPOINTS}
    own = answers(0, 0.9, ["a"]) | answers(1, 0.9, ["b"])
    individual = save_answers(own, runs="runs", method="individual", checkpoints=checkpoints, **RUN)
    more = RUN | {"runs": "runs", "individual": individual}
    for seed, alpha in ((2, 0.5), (3, 1)):
        merged = f"{alpha}.safetensors"
        made(tmp_path, "ties", merged, knobs={"density": 0.2}, alpha=alpha)
        save_answers(answers(seed, 0.7), merged=merged, label="TIES", **more)
    return tmp_path / "runs"


def test_a_merge_says_itself_how_it_was_made(saved):
    runs = {run.alpha: run for _, run in find_runs(saved, method="ties")}
    assert set(runs) == {0.5, 1}
    [(_, individual)] = find_runs(saved, method="individual")
    assert individual.task_known and individual.label == "Individual"
    for alpha, run in runs.items():
        assert not run.task_known and run.tasks == {"a": "Task A", "b": "b"}
        assert run.knobs["alpha"] == alpha and run.knobs["density"] == 0.2
        # tsv-merge and save_answers have the same hashes of the same files.
        assert run.checkpoints == individual.checkpoints
        assert set(run.checkpoints) == {"pretrained", "a", "b"}
        ratios = [run.test[t].accuracy / individual.test[t].accuracy for t in run.tasks]
        assert run.normalized == pytest.approx(sum(ratios) / 2, rel=1e-15)


def test_adapters_are_known_by_the_hashes_of_a_merge(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter_files.write(tmp_path / "a")
    adapter_files.write(tmp_path / "b", adapter_files.factors(seed=2))
    tuned = {"a": "a", "b": "base.safetensors+b"}
    made(Path(), "weight_average", "out.safetensors", tuned=tuned)
    given = {"runs": "runs", **RUN}
    run = save_answers(answers(0, 0.5), merged="out.safetensors", **given)
    checkpoints = {"pretrained": "base.safetensors", **tuned}
    other = save_answers(answers(0, 0.5), method="zero_shot", checkpoints=checkpoints, **given)
    assert other.checkpoints == run.checkpoints


def test_they_stand_in_a_table_with_intervals(saved):
    [table] = build_tables(read_evaluated(saved))
    assert [row.label for row in table.rows] == ["TIES (alpha=0.5)", "TIES (alpha=1)", "Individual"]
    assert all(row.absolute.images and row.normalized.images for row in table.rows)
    text = render_markdown([table])
    assert "80 test examples" in text and "Task A" in text and "image" not in text
    line = next(line for line in text.splitlines() if "alpha=0.5" in line)
    assert re.search(r"\| 0.50 \| - \|", line)
    assert "| - |" in render_markdown([table], "leaderboard")


def test_merges_are_compared_on_the_same_examples(saved):
    evaluated = read_evaluated(saved)
    [compared], refused = compare(evaluated, ["ties:alpha=0.5", "ties:alpha=1"])
    bits = [load_correct(path) for path, run in find_runs(saved, method="ties")]
    runs = [run for _, run in find_runs(saved, method="ties")]
    by_alpha = {run.alpha: of_run for run, of_run in zip(runs, bits, strict=True)}
    difference = np.mean([by_alpha[0.5][t].mean() - by_alpha[1][t].mean() for t in ("a", "b")])
    assert compared.absolute.difference.value == pytest.approx(difference, abs=1e-15)
    assert compared.normalized.p is not None and not refused


def test_without_individual_models_nothing_is_normalized(tmp_path):
    run = save_answers(answers(0, 0.5), runs=tmp_path, method="mine", **RUN)
    again = save_answers(answers(1, 0.5), runs=tmp_path, method="mine", **RUN)
    assert run.fingerprint == again.fingerprint  # the same settings: replaced
    evaluated = read_evaluated(tmp_path)
    [table] = build_tables(evaluated)
    assert len(table.rows) == 1 and np.isnan(table.rows[0].normalized.value)
    assert "individual=" in " ".join(table.notes) and "tsv-bench" not in " ".join(table.notes)
    [packed] = pack_runs(evaluated, [table])["runs"]
    assert packed["normalized"] is None
    assert asdict(again)["seconds"] == {}
    for change in ({"seed": 1}, {"alpha": 0.5}):
        other = save_answers(answers(0, 0.5), runs=tmp_path, method="mine", **RUN, **change)
        assert other.fingerprint != run.fingerprint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": None}, "merged=FOLDER of tsv-merge, or method="),
        ({"merged": "x"}, "leave method= out"),
        ({"merged": "x", "method": None, "knobs": {}}, "leave knobs= out"),
        ({"merged": "x", "method": None, "alpha": 1.0}, "leave alpha= out"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"suite": "a/b"}, "its suite"),
        ({"checkpoints": {"pretrained": "nowhere"}}, "nowhere"),
    ],
)
def test_what_no_run_can_be_is_refused(tmp_path, change, said):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(said)):
        save_answers(answers(0, 0.5), **{"runs": tmp_path, "method": "mine", **RUN} | change)
    assert not list(tmp_path.rglob("*.json"))


def test_models_that_answered_something_else_normalize_nothing(tmp_path):
    given = RUN | {"runs": tmp_path}
    own = save_answers(answers(0, 0.9, data={"a": "v1"}), method="individual", **given)
    with pytest.raises(ValueError, match=r"'a' on other examples \(v1, here v2\)"):
        save_answers(answers(1, 0.5, data={"a": "v2"}), method="mine", individual=own, **given)
    fewer = Answers(correct={"b": np.ones(39, bool)})
    with pytest.raises(ValueError, match=r"'b' .* \(40 examples, here 39 examples\)"):
        save_answers(fewer, method="mine", individual=own, **given)


def test_a_file_of_no_merge_is_refused(tmp_path):
    write_checkpoints(tmp_path)
    with pytest.raises(ValueError, match="does not say how it was merged.*method="):
        save_answers(answers(0, 0.5), runs=tmp_path, merged=tmp_path / "a.safetensors", **RUN)
