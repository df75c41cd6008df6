"""A job in another process or on another machine: what it finds there, and how it ends."""

import os
import signal
import sys
from dataclasses import replace
from types import FunctionType

import pytest

from tsv_bench.cli.sweep.elsewhere import SUBMITIT, Home, at_home, is_queued_again
from tsv_bench.cli.sweep.records import write_jobs
from tsv_bench.process.signals import Ended


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Of a command that was started in another folder."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    write_jobs(tmp_path / "sweep", [])
    made = Home.here()
    monkeypatch.chdir("/")
    return made


def test_a_job_finds_folder_and_modules_of_the_command(home):
    with at_home(replace(home, modules=("mine",)), "sweep", "Launcher"):
        assert os.getcwd() == home.folder and sys.path[-1] == "mine"


def test_another_process_is_not_home(home):
    assert home.is_here
    assert not replace(home, process=home.process + 1).is_here
    assert not replace(home, host="another").is_here


@pytest.mark.parametrize(
    ("folder", "sweep", "version", "said"),
    [("/nowhere", "sweep", None, "does not see /nowhere of there. The folder where a sweep is"),
     (None, "sweeps", None, "/sweeps/jobs.yaml of there. The folder where a sweep is started, and"),
     (None, "sweep", "7", r"has tsv_bench \S+, and the sweep was started on there by 7. Install")],
)  # fmt: skip
def test_a_machine_that_cannot_run_the_job_says_why(folder, sweep, version, said, home):
    given = replace(
        home, host="there", folder=folder or home.folder, version=version or home.version
    )
    with pytest.raises(ValueError, match=said), at_home(given, sweep, "Launcher"):
        pass


@pytest.mark.parametrize(("launcher", "error"), [(SUBMITIT + "x", SystemExit), ("Loky", Ended)])
def test_a_signal_ends_a_process_of_its_own_with_its_code(launcher, error, home):
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(error) as caught, at_home(home, "sweep", launcher):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert error is Ended or caught.value.code == 128 + signal.SIGTERM


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
