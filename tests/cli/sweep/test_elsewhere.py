"""A job in another process or on another machine: what it finds there, and how it ends."""

import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import FunctionType

import pytest

from tsv_bench import provenance
from tsv_bench.cli.sweep import elsewhere
from tsv_bench.cli.sweep.command import typed_command
from tsv_bench.cli.sweep.elsewhere import (
    RAY,
    SUBMITIT,
    Home,
    at_home,
    check_alike,
    is_queued_again,
    set_marks,
)
from tsv_bench.process.signals import Ended

HERE = socket.gethostname()
COMMIT = "0123456789ab"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Of a command that was started in another folder, on a machine that is called there."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(elsewhere, "APPEARS", 0)
    monkeypatch.setattr(provenance, "commit", lambda: COMMIT)
    monkeypatch.chdir(tmp_path)
    made = Home.here("tsv-merge", ["--multirun", "output=my folder"])
    set_marks(made.mark, [Path("sweep"), Path("runs")])
    monkeypatch.chdir("/")
    return made


def test_a_job_finds_folder_modules_and_command_line_of_the_command(home):
    before = typed_command.get()
    with at_home(replace(home, modules=("mine",)), "sweep", "Launcher"):
        assert os.getcwd() == home.folder and sys.path[-1] == "mine"
        assert typed_command.get() == "tsv-merge --multirun 'output=my folder'"
    assert typed_command.get() == before


def test_another_process_is_not_home(home):
    assert home.is_here
    assert not replace(home, process=home.process + 1).is_here
    assert not replace(home, host="another").is_here


@pytest.mark.parametrize(
    ("folder", "sweep", "said"),
    [("/nowhere", "sweep", "does not see /nowhere of there. The folder where a sweep is started"),
     (None, "sweeps", "sweeps/.sweep-.* of there. hydra.sweep.dir has to be on a file system")],
)  # fmt: skip
def test_a_machine_that_does_not_see_the_sweep_says_so(folder, sweep, said, home):
    given = replace(home, host="there", folder=folder or home.folder)
    with pytest.raises(ValueError, match=f"^{HERE} .*{said}"), at_home(given, sweep, "Launcher"):
        pass


def test_folders_that_only_look_the_same_are_told_by_a_file_of_this_sweep(home):
    """The job's machine has a folder of that name, and a sweep's of an earlier day."""
    given = replace(home, host="there")
    check_alike(given, {"paths.runs": "runs"})
    check_alike(given, {"paths.runs": f"{home.folder}/runs"})
    with pytest.raises(
        ValueError, match=rf"^{HERE} does .*/runs/\S+ of there. paths.runs=runs has"
    ):
        check_alike(replace(given, mark=".sweep-earlier"), {"paths.runs": "runs"})


def test_a_file_that_another_machine_has_just_made_is_waited_for(home, monkeypatch):
    monkeypatch.setattr(elsewhere, "APPEARS", 60)
    late = replace(home, mark=".sweep-late")

    def sleep(seconds):
        set_marks(late.mark, [Path(home.folder) / "runs"])

    monkeypatch.setattr(elsewhere.time, "sleep", sleep)
    check_alike(late, {"paths.runs": "runs"})


def test_another_version_is_said_by_both_machines(home):
    with pytest.raises(ValueError, match=rf"^{HERE} has tsv_bench \S+, .* on there by 7. Install"):
        check_alike(replace(home, host="there", version="7"), {})


@pytest.mark.parametrize(
    ("own", "refused"),
    [("ba9876543210", True), ("ba9876543210-dirty", True), (f"{COMMIT}-dirty", False),
     ("tsv_bench 0.1.0, no git checkout", False)],
)  # fmt: skip
def test_another_commit_is_said_by_both_machines(own, refused, home, monkeypatch, caplog):
    monkeypatch.setattr(provenance, "commit", lambda: own)
    said = f"{HERE} has tsv_bench at {own}, and the sweep was started on there by {COMMIT}."
    given = replace(home, host="there")
    if refused:
        with pytest.raises(ValueError, match=f"^{said} Check out the same on both"):
            check_alike(given, {"paths.runs": "runs"})
    else:
        check_alike(given, {"paths.runs": "runs"})
        assert caplog.messages[0].startswith(said)


@pytest.mark.parametrize(("launcher", "error"), [(SUBMITIT + "x", SystemExit), ("Loky", Ended)])
def test_a_signal_ends_a_process_of_its_own_with_its_code(launcher, error, home):
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(error) as caught, at_home(home, "sweep", launcher):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert error is Ended or caught.value.code == 128 + signal.SIGTERM


def test_a_signal_ends_the_process_of_a_job_of_ray_as_a_kill_does(home, monkeypatch):
    before, codes = signal.signal(signal.SIGTERM, signal.SIG_DFL), []
    monkeypatch.setattr(os, "_exit", codes.append)
    try:
        with pytest.raises(Ended), at_home(home, "sweep", RAY + "x"):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert codes == [128 + signal.SIGTERM]


def leave():
    raise SystemExit(144)


@pytest.mark.parametrize(
    ("module", "again"), [("submitit.local.local", True), ("tsv_bench.cli", False)]
)
def test_only_submitit_queues_again(module, again):
    work = FunctionType(leave.__code__, {"__name__": module, "SystemExit": SystemExit})
    with pytest.raises(SystemExit) as caught:
        work()
    assert is_queued_again(caught.value) == again
    assert not is_queued_again(ValueError("bad"))
