"""Sweeps: a mistake is found before the first job, and a job that fails stops no other."""

import csv
import json
import logging
import shlex
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from unittest import mock

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from made_up.merges import files, write_checkpoints
from omegaconf import OmegaConf
from stand_ins import hydras_plugins
from stand_ins.commands import SMALL, begin_from, tsv

from tsv_bench.benchmark.cells import make_run
from tsv_bench.cli.config.checkpoint_files import largest_fraction
from tsv_bench.cli.sweep import callback, elsewhere
from tsv_bench.cli.sweep.comparison import show_comparison
from tsv_bench.cli.sweep.records import read_records, write_jobs
from tsv_bench.files import lease
from tsv_bench.report import write_report

DENSITIES = ["--multirun", "method=ties", "method.alphas=[1.0]"]


def records(folder):
    """Of the newest sweep in a folder."""
    return read_records(max((folder / "sweeps").iterdir()))


@pytest.fixture(scope="module")
def swept(fine_tuned, tmp_path_factory):
    """(folder, what a sweep printed whose second job of three has a bug)."""
    folder = begin_from(fine_tuned, tmp_path_factory.mktemp("sweep"))
    work = make_run.evaluate_method

    def evaluate(tasks, method, *more):
        return method.bug if method.knobs["density"] == 0.3 else work(tasks, method, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_run, "evaluate_method", evaluate)
        result = tsv(folder, "bench", *DENSITIES, "method.density=0.2,0.3,0.5", *SMALL)
    return folder, result


@pytest.fixture
def copy(swept, tmp_path):
    return shutil.copytree(swept[0], tmp_path / "copy")


def test_a_job_that_fails_does_not_stop_the_others(swept):
    folder, result = swept
    assert result.code == 1
    table = result.out.splitlines()
    for density in (0.2, 0.5):
        assert any(line.startswith(f"TIES (density={density})") for line in table)
    assert "Traceback" in result.err  # of a bug; of a user's mistake there is none
    assert "tsv-bench: error in method.density=0.3: AttributeError: " in result.err
    last = result.err[result.err.index("tsv-bench: 1 of 3 failed:") :].splitlines()
    assert last[1].startswith("  method.density=0.3: AttributeError: ")
    assert [r.error is None for r in records(folder / "runs")] == [True, False, True]
    [log] = (folder / "runs" / "sweeps").glob("*/1.log")
    assert "Traceback" in log.read_text() and "method.density=0.3" in log.read_text()


def test_what_failed_is_made_by_the_command_that_is_named(swept, copy):
    command = swept[1].err.strip().splitlines()[-1].partition("again by: tsv-bench ")[2]
    result = tsv(copy, "bench", *shlex.split(command))
    assert result.code == 0, result.err
    assert "TIES" in result.out and len([*(copy / "runs").rglob("ties-*.json")]) == 3
    # A sweep of other Runs leaves the report that was there.
    other = tsv(copy, "bench", *DENSITIES, "method.density=0.3", *SMALL)
    said = "The report of other Runs that was in runs/report is now in runs/report/"
    [line] = [line for line in other.out.splitlines() if line.startswith(said)]
    kept = copy / line.removesuffix(".").rpartition(" ")[2] / "table.csv"
    assert "density=0.2" in kept.read_text()
    assert "density=0.2" not in (copy / "runs" / "report" / "table.csv").read_text()


def test_of_two_sweeps_that_end_at_once_one_waits_and_no_report_is_lost(
    copy, monkeypatch, caplog, capsys
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(lease, "NOTICE", 0)
    monkeypatch.chdir(copy)
    paths = {"runs": "runs", "report": "both", "checkpoints": "checkpoints"}
    config = OmegaConf.create({"paths": paths, "layout": "runs"})
    made = sorted(Path("runs").rglob("ties-*.json"))
    second, write = Thread(target=show_comparison, args=(config, made[1:])), write_report.writing

    @contextmanager
    def writing(folder):
        with write(folder):
            if second.ident is None:  # of the first
                second.start()
                while second.is_alive() and not caplog.messages:
                    time.sleep(0.01)
            yield

    monkeypatch.setattr(write_report, "writing", writing)
    show_comparison(config, made[:1])
    second.join()
    [said] = caplog.messages
    assert said.startswith("waiting for process ") and said.endswith("which makes both/figures.md")
    [earlier] = [path for path in Path("both").iterdir() if path.is_dir()]
    for path, folder in zip(made, (earlier, Path("both")), strict=True):
        rows = [*csv.DictReader((folder / "runs.csv").read_text().splitlines())]
        assert [row["fingerprint"] for row in rows] == [path.stem.partition("-")[2]] * 2
    said = f"The report of other Runs that was in both is now in {earlier}."
    assert capsys.readouterr().out.count(said) == 1


def test_a_report_that_was_cut_short_among_its_figures_is_not_taken_for_anothers(
    copy, monkeypatch, capsys
):
    monkeypatch.chdir(copy)
    paths = {"runs": "runs", "report": "cut", "checkpoints": "checkpoints"}
    config = OmegaConf.create({"paths": paths, "layout": "runs"})
    made = sorted(Path("runs").rglob("ties-*.json"))
    monkeypatch.setattr(write_report, "_draw", mock.Mock(side_effect=[KeyboardInterrupt, []]))
    with pytest.raises(KeyboardInterrupt):
        show_comparison(config, made)
    show_comparison(config, made)
    assert not [path for path in Path("cut").iterdir() if path.is_dir()]
    assert "The report of other Runs" not in capsys.readouterr().out


def test_a_wrong_job_is_found_before_the_first_starts(copy):
    before = sorted(copy.rglob("*"))
    result = tsv(copy, "bench", *DENSITIES, "method.density=0.1,7,0.4", *SMALL)
    assert result.code == 1 and result.out == ""
    assert result.err == (
        "tsv-bench: error: 1 of 3 cannot run, so none was started:\n  method.density=7: density=7 "
        "is not in (0, 1]: it is the share of entries that trimming keeps.\n"
    )
    assert sorted(copy.rglob("*")) == before


def test_with_tracebacks_wanted_a_wrong_job_ends_the_sweep_too(copy, monkeypatch):
    """Hydra turns the exception of a callback into a warning."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    result = tsv(copy, "bench", *DENSITIES, "method.density=0.1,7", *SMALL)
    assert result.code == 1 and "Traceback" in result.err
    assert "ValueError: 1 of 2 cannot run, so none was started:" in result.err


@pytest.fixture
def plugins(monkeypatch):
    return hydras_plugins.register(monkeypatch)


def test_jobs_in_other_processes_end_in_one_table_and_one_that_was_killed_is_named(copy, plugins):
    """Their Runs are there already: a forked process must not compute."""
    plugins.Forking.killed = (1,)
    launcher = "hydra/launcher=forking"
    result = tsv(copy, "bench", *DENSITIES, "method.density=0.2,0.5", launcher, *SMALL)
    assert result.code == 1
    assert len([line for line in result.out.splitlines() if line.startswith("TIES ")]) == 1
    assert "1 of 2 failed:\n  method.density=0.5: did not end. Its process may" in result.err


def test_runs_that_another_machine_does_not_see_are_found_before_any_work(
    copy, plugins, monkeypatch
):
    """It has folders of these names, but for that of Runs they are the command's."""
    hydras_plugins.take_for_elsewhere(monkeypatch, host="login1")
    monkeypatch.setattr(elsewhere, "APPEARS", 0)
    monkeypatch.setattr(callback, "shared", lambda *args: [])  # so that no mark is in runs
    line = [*DENSITIES, "method.density=0.2,0.9", "hydra/launcher=elsewhere", *SMALL]
    result = tsv(copy, "bench", *line)
    said = " of login1. paths.runs=runs has to be on a file system that all machines share."
    assert result.code == 1 and "tsv-bench: 2 of 2 failed:" in result.err
    assert result.err.count(said) == 4  # of both jobs, when it happens and at the end
    assert not [*(copy / "runs").rglob(".sweep-*")] and not [*copy.rglob("*.tmp")]


def test_jobs_with_other_folders_of_runs_are_found(copy):
    line = ["--multirun", "method=ties", "method.alphas=[1.0]", "paths.runs=one,two runs", *SMALL]
    result = tsv(copy, "bench", *line)
    assert result.code == 0, result.err
    for name in ("one", "two runs"):
        assert len([*(copy / name).rglob("ties-*.json")]) == 1
        assert not (copy / name / "sweeps").exists()
    assert len([*(copy / "runs" / "sweeps").glob("*/1.yaml")]) == 2


def test_a_launcher_that_fails_loses_no_table(copy, plugins):
    launcher = "hydra/launcher=failing"
    result = tsv(copy, "bench", *DENSITIES, "method.density=0.2,0.5", launcher, *SMALL)
    assert result.code == 1 and "a node is gone" in result.err
    assert "TIES" in result.out and "1 of 2 failed:\n  method.density=0.5: did not" in result.err


def test_a_sweeper_that_goes_by_results_gets_validation_and_no_test_number_changes(copy, plugins):
    """The Runs of the fixed alpha are there, without validation."""
    paths = sorted((copy / "runs" / "mini").rglob("ties-*.json"))
    before = [json.loads(path.read_text()) for path in paths]
    assert [run["normalized_val"] for run in before] == [None] * 2
    line = [*DENSITIES, "method.density=0.2,0.5", "hydra/sweeper=by_results", *SMALL]
    result = tsv(copy, "bench", *line)
    assert result.code == 0 and "on validation" in result.err
    after = [json.loads(path.read_text()) for path in paths]
    assert sorted(run["normalized_val"] for run in after) == sorted(plugins.ByResults.metrics)
    for old, new in zip(before, after, strict=True):
        assert set(new["val"]) == set(new["tasks"])
        assert {key for key in old if old[key] != new[key]} == {"val", "normalized_val"}
    assert "TIES (density=0.5)" in result.out and "The report of other Runs" not in result.out

    again = tsv(copy, "bench", *line)
    assert again.err.count("already there") == 2


def test_a_job_that_fails_is_no_result_for_a_sweeper(copy, plugins):
    line = [*DENSITIES, "method.density=0.2,7", "hydra/sweeper=by_results", *SMALL]
    result = tsv(copy, "bench", *line)
    assert result.code == 1 and plugins.ByResults.metrics[1:] == ["density=7 is not in (0, 1]: it"]


def test_what_gives_no_metric_is_found_before_the_first_trial(copy, plugins):
    """Or, where only the trial shows it, said by the trial."""
    line = ["--multirun", "method=ties", "hydra/sweeper=by_results", *SMALL]
    fixed = ["method.alphas=[1.0]", "method.density=0.2"]
    plugins.ByResults.metrics = None
    result = tsv(copy, "bench", *line, *fixed, "evaluation.validate=false")
    assert result.code == 1 and "Runs of ties lack by evaluation.validate=false" in result.err
    assert plugins.ByResults.metrics is None
    more = ["evaluation.validate=false,null", "hydra/launcher=elsewhere"]
    result = tsv(copy, "bench", *line, *fixed, *more)
    assert plugins.ByResults.metrics[0] == "it has no accuracy on validation"[:30]
    assert float(plugins.ByResults.metrics[1]) > 0


def test_a_job_knows_the_largest_fraction_of_all_wherever_it_runs(tmp_path, monkeypatch):
    hydra = OmegaConf.create({"mode": RunMode.MULTIRUN, "runtime": {"output_dir": str(tmp_path)}})
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: hydra))
    assert largest_fraction() == 0
    jobs = [["seed=0", f"method.rank_fraction={f}"] for f in ("0.1", "0.3", "null", "0.2")]
    write_jobs(tmp_path, jobs)
    assert largest_fraction() == 0.3
    hydra.mode = RunMode.RUN
    assert largest_fraction() == 0


def test_merges_are_swept_alike(tmp_path):
    write_checkpoints(tmp_path)
    named = ",".join(f"{task}:{path}" for task, path in files().items())
    given = ["pretrained=base.safetensors", f"finetuned={{{named}}}", "cache.folder=null"]
    line = ["--multirun", "method=ties", "output=${method.density}.safetensors", *given]
    wrong = tsv(tmp_path, "merge", *line, "method.density=0.2,7,0.5")
    assert wrong.code == 1 and "\n  method.density=7: density=7 is not in" in wrong.err
    assert not [*tmp_path.glob("0.*")] and not (tmp_path / "sweeps").exists()

    (tmp_path / "0.3.safetensors").write_text("in the way")
    result = tsv(tmp_path, "merge", *line, "method.density=0.2,0.3,0.5")
    assert result.code == 1 and "tsv-merge: 1 of 3 failed:\n  method.density=0.3: " in result.err
    assert {path.name for path in tmp_path.glob("0.*")} > {"0.2.safetensors", "0.5.safetensors"}


def test_checkpoints_are_swept_alike(fine_tuned, tmp_path):
    folder = begin_from(fine_tuned, tmp_path)
    result = tsv(folder, "finetune", "--multirun", "task=signs", "backbone.finetune.rate=1e-5,fast")
    assert result.code == 1 and "\n  backbone.finetune.rate=fast: " in result.err
    assert "1 of 2 cannot run, so none was started" in result.err
