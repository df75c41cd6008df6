"""The end of a sweep, from its records alone."""

from contextlib import nullcontext

import pytest
from omegaconf import OmegaConf

from tsv_bench.cli.sweep.command import Command, current
from tsv_bench.cli.sweep.ending import Sweep, again, end
from tsv_bench.cli.sweep.jobs import Job
from tsv_bench.cli.sweep.records import Record, write_record

ARGUMENTS = ["--multirun", "--config-dir", "my conf", "method=ties", "seed=0,1,2"]


@pytest.fixture
def sweep(tmp_path):
    """A sweep over three seeds that has begun, and what its end was given to show."""
    shown = []
    command = Command(
        program="tsv-bench",
        arguments=ARGUMENTS,
        check=lambda config: None,
        conclude=lambda config, files: shown.extend(map(str, files)),
    )
    jobs = [Job(n, ["method=ties", f"seed={n}"], f"seed={n}") for n in range(3)]
    token = current.set(command)
    Sweep.begun = Sweep(command, OmegaConf.create(), tmp_path, jobs)
    yield Sweep.begun, shown
    current.reset(token)
    Sweep.begun = None


def ended(sweep, number, **more):
    files = [] if more.get("error") else [f"{number}.json"]
    overrides = ["method=ties", f"seed={number}"]
    write_record(sweep.folder, Record(number=number, overrides=overrides, files=files, **more))


def test_if_all_went_well_what_jobs_made_is_shown_in_their_order(sweep, capsys):
    sweep, shown = sweep
    for number in (2, 0, 1):
        ended(sweep, number)
    end()
    assert shown == ["0.json", "1.json", "2.json"] and capsys.readouterr().err == ""


def test_what_failed_and_what_did_not_end_are_listed_below_the_rest(sweep, capsys):
    sweep, shown = sweep
    ended(sweep, 0)
    ended(sweep, 1, error="no such\nthing")
    with pytest.raises(SystemExit, match="1"):
        end()
    assert shown == ["0.json"]
    assert capsys.readouterr().err == (
        "tsv-bench: 2 of 3 failed:\n"
        "  seed=1: no such\n    thing\n"
        "    again by: tsv-bench --config-dir 'my conf' method=ties seed=1\n"
        "  seed=2: did not end. Its process may have been killed, or be still at work elsewhere\n"
        "    again by: tsv-bench --config-dir 'my conf' method=ties seed=2\n"
    )


def test_another_machine_is_named_beside_what_failed_there(sweep, capsys):
    """As one that lacks a package: the message is of that machine."""
    sweep, _ = sweep
    for number in (0, 2):
        ended(sweep, number, host="node3")
    ended(sweep, 1, host="node7", error="No module named 'my_backbone'")
    with pytest.raises(SystemExit):
        end()
    assert "\n  seed=1 on node7: No module named 'my_backbone'\n" in capsys.readouterr().err


@pytest.mark.parametrize("number_ended", [2, 3])
def test_marks_stay_for_jobs_that_may_come_yet(number_ended, sweep):
    sweep, _ = sweep
    sweep.marks = [sweep.folder / "mark"]
    sweep.marks[0].touch()
    for number in range(number_ended):
        ended(sweep, number)
    with pytest.raises(SystemExit) if number_ended < 3 else nullcontext():
        end()
    assert sweep.marks[0].exists() == (number_ended < 3)


def test_if_none_finished_nothing_is_shown(sweep, capsys):
    sweep, shown = sweep
    with pytest.raises(SystemExit):
        end()
    assert shown == [] and "3 of 3 failed" in capsys.readouterr().err


def test_a_sweep_ends_once(sweep):
    sweep, shown = sweep
    for number in range(3):
        ended(sweep, number)
    end()
    end()
    assert len(shown) == 3


def test_a_sweep_of_another_command_is_not_ended(sweep):
    current.set(None)
    end()
    assert sweep[1] == []


def test_one_job_again_is_what_a_user_types():
    command = Command(program="tsv-bench", arguments=["-m", "-cd=mine"], check=lambda config: None)
    overrides = ["task@suite.tasks=[a,b]", "output=${hydra:job.num}.pt"]
    record = Record(number=3, overrides=overrides, files=[])
    assert again(command, record) == "tsv-bench -cd=mine 'suite.tasks=[a,b]' output=3.pt"
