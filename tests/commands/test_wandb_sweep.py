"""The sweep of conf/tracker: what W&B's agent makes of it, run by the agent's own code."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from stand_ins.commands import SMALL, begin_from, runs
from stand_ins.wandb_files import of_type, own_folders, records, summary, values
from wandb.wandb_agent import Agent

from tsv_bench.cli import bench
from tsv_bench.cli.config.overrides import CONF, checked

SWEEP = yaml.safe_load((CONF / "tracker" / "rank_fraction.sweep.yml").read_text())


def agent(extra=()):
    """An agent that has its command from the file and not from a server; `extra` arguments."""
    found = Agent(api=None, queue=None, sweep_id="made-up")
    found._sweep_command = [*SWEEP["command"], *extra]
    return found


def assignment(**chosen):
    """What a server tells an agent to run: the first value of each parameter, or the chosen."""
    first = {name: spec["values"][0] for name, spec in SWEEP["parameters"].items()}
    args = {name: {"value": value} for name, value in (first | chosen).items()}
    return {"type": "run", "run_id": "abcd1234", "program": SWEEP["program"], "args": args}


@pytest.fixture
def started(monkeypatch):
    """The command lines of agents, which start nothing."""
    lines = []

    def note(command, **settings):
        lines.append(command)
        return SimpleNamespace()

    monkeypatch.setattr("wandb.wandb_agent.AgentProcess", note)
    return lines


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    own_folders(monkeypatch, tmp_path / "wandb-own")
    monkeypatch.chdir(tmp_path)
    for name in ("DIR", "RUN_ID", "SWEEP_ID", "SWEEP_PARAM_PATH"):  # the agent sets them for good
        monkeypatch.setenv(f"WANDB_{name}", "")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SWEEP_ID", "made-up")


def test_every_pair_is_a_command_line_that_tsv_bench_accepts(started):
    methods, fractions = (spec["values"] for spec in SWEEP["parameters"].values())
    assert list(SWEEP["parameters"]) == ["method", "method.rank_fraction"]
    for method in methods:
        for fraction in fractions:
            wanted = {"method": method, "method.rank_fraction": fraction}
            agent()._command_run(assignment(**wanted))
            arguments = ["tracker=wandb", f"method={method}", f"method.rank_fraction={fraction}"]
            assert started.pop() == ["/usr/bin/env", "tsv-bench", *arguments]
        assert checked("bench", arguments) == arguments


@pytest.mark.slow
def test_an_agents_job_is_one_wandb_run_with_its_parameters(fine_tuned, tmp_path, monkeypatch):
    begin_from(fine_tuned, tmp_path)
    program = tmp_path / "bin" / "tsv-bench"  # of this checkout, installed or not
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m tsv_bench.cli.bench \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(bench.__file__).parents[2]))

    one = agent(["evaluation.patience=1", *SMALL])
    one._command_run(assignment(**{"method.rank_fraction": 0.1}))
    assert one._run_processes["abcd1234"].wait() == 0

    merged = runs(tmp_path)["tsv_merge"]
    assert merged.knobs["rank_fraction"] == 0.1
    [file] = tmp_path.glob("wandb/offline-run-*/run-abcd1234.wandb")
    found = list(records(file))
    [run] = of_type(found, "run")
    assert (run.run_id, run.sweep_id, run.job_type) == ("abcd1234", "made-up", "tsv_merge")
    config = values(run.config.update)
    assert (config["method"], config["method.rank_fraction"]) == ("tsv_merge", 0.1)
    assert config["knobs"]["rank_fraction"] == 0.1
    assert SWEEP["metric"]["name"] == "validation"
    assert summary(found)["validation"] == merged.validation
    assert merged.validation == max(point["normalized"] for point in merged.alpha_curve)
