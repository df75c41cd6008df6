"""The sweep of conf/tracker: what W&B's agent makes of it, by the agent's own code."""

import os
from types import SimpleNamespace
from unittest import mock

import pytest
import wandb
import yaml
from stand_ins.commands import SMALL, begin_from, runs, tsv
from stand_ins.wandb_files import of_type, own_folders, records, summary, values
from wandb.wandb_agent import Agent

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
    """The command lines of agents, which start nothing, and the environment of each."""
    lines = []

    def note(command, env, **settings):
        lines.append((command, env))
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
    wandb.teardown()  # what it has read of the environment before
    yield
    monkeypatch.undo()
    wandb.teardown()


def test_every_pair_is_a_command_line_that_tsv_bench_accepts(started):
    methods, fractions = (spec["values"] for spec in SWEEP["parameters"].values())
    assert list(SWEEP["parameters"]) == ["method", "method.rank_fraction"]
    for method in methods:
        for fraction in fractions:
            wanted = {"method": method, "method.rank_fraction": fraction}
            agent()._command_run(assignment(**wanted))
            arguments = ["tracker=wandb", f"method={method}", f"method.rank_fraction={fraction}"]
            assert started.pop()[0] == ["/usr/bin/env", "tsv-bench", *arguments]
        assert checked("bench", arguments) == arguments


@pytest.mark.filterwarnings("ignore:unclosed file .*config-abcd1234:ResourceWarning")  # wandb's own
def test_an_agents_job_is_one_wandb_run_with_its_parameters(fine_tuned, tmp_path, started):
    begin_from(fine_tuned, tmp_path)
    agent(SMALL)._command_run(assignment(**{"method.rank_fraction": 0.1}))
    [(command, environment)] = started
    with mock.patch.dict(os.environ, environment, clear=True):
        done = tsv(tmp_path, "bench", *command[2:])
    assert done.code == 0 and "W&B did not take" not in done.err, done.err
    wandb.teardown()  # its own process ends, and only then is the file complete

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
