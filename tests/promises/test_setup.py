"""What make does beyond .venv: a browser for the tests, in CI and nowhere else."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / ".ci" / "setup.py"


@pytest.fixture
def machine(monkeypatch):
    """A root's CI machine with apt-get and no browser; (the set-up, the commands it gave)."""
    spec = importlib.util.spec_from_file_location("setup_of_ci", FILE)
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    commands = []

    def run(command, **how):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(setup.os, "getuid", lambda: 0)
    monkeypatch.setattr(setup.subprocess, "run", run)
    monkeypatch.setattr(setup.shutil, "which", lambda name: name if name == "apt-get" else None)
    return setup, commands


def test_ci_gets_a_browser(machine):
    setup, commands = machine
    setup.get_browser()
    assert ["update" in c for c in commands] == [True, False] and commands[1][-1] == "chromium"


@pytest.mark.parametrize("other", ["not CI", "not root", "no apt-get", "has a browser"])
def test_nobody_else_does(machine, monkeypatch, other):
    setup, commands = machine
    if other == "not CI":
        monkeypatch.delenv("CI")
    elif other == "not root":
        monkeypatch.setattr(setup.os, "getuid", lambda: 1000)
    else:
        found = {"no apt-get": None, "has a browser": "there"}[other]
        monkeypatch.setattr(setup.shutil, "which", lambda name: found)
    setup.get_browser()
    assert not commands


def test_no_browser_is_no_failure(machine, monkeypatch, capsys):
    setup, commands = machine
    monkeypatch.setattr(setup, "is_done", lambda: True)
    for failure in (OSError("no apt"), subprocess.TimeoutExpired("apt-get", 600)):

        def run(command, failure=failure, **how):
            raise failure

        monkeypatch.setattr(setup.subprocess, "run", run)
        assert setup.main() == 0
        assert "its tests will be skipped" in capsys.readouterr().out
