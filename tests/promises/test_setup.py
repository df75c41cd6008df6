"""`make install` may be killed and started twice; CI gets a browser, and no other machine does.

A stand-in takes uv's place: it writes down what it is asked and waits for the test's word.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[2] / ".ci"
UV = """#!/bin/sh
echo "uv $*" >> asked
case "$*" in
    --version) exit 0 ;;
    *--dry-run*) exit $(cat refuses) ;;
esac
touch started
until [ -e go ]; do sleep 0.01; done
"""
# That of a .venv without uv: pip finds it in "wheel".
PYTHON = """#!/bin/sh
echo "python $*" >> asked
case "$*" in *uv) mv wheel .venv/bin/uv ;; esac
"""


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)


class Checkout:
    """A folder with the files that the set-up reads, and a PATH of stand-ins."""

    def __init__(self, folder):
        self.folder, self.venv = folder, folder / ".venv"
        for name in ("pyproject.toml", "constraints.txt", "tsv_bench/__init__.py", "bin/uv"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        shutil.copytree(CI, folder / ".ci")
        program(folder / "bin" / "uv", UV)
        (folder / "refuses").write_text("0")
        (folder / "go").touch()

    def start(self):
        command = [sys.executable, ".ci/setup.py"]
        env = os.environ | {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin"}
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        group = {"start_new_session": True}
        return subprocess.Popen(command, cwd=self.folder, env=env, **out, **group)

    def run(self):
        """Return the exit code, the output and how often uv installed."""
        (self.folder / "asked").write_text("")
        done = self.start()
        output, _ = done.communicate(timeout=100)
        return done.returncode, output, self.installs()

    def installs(self):
        asked = (self.folder / "asked").read_text().splitlines()
        return sum("pip install" in line and "--dry-run" not in line for line in asked)

    def start_and_hold(self):
        """Start a set-up and return it while its uv writes into .venv."""
        (self.folder / "go").unlink()
        first = self.start()
        while not (self.folder / "started").exists():
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.01)
        return first

    def go_on(self):
        (self.folder / "go").touch()


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_uv_installs_once_and_again_when_a_requirement_changes(checkout):
    assert checkout.run()[::2] == (0, 1)
    assert checkout.run() == (0, "", 0)
    (checkout.folder / "constraints.txt").write_text("torch==2.15.0\n")
    code, output, installs = checkout.run()
    assert (code, installs) == (0, 1) and "anew" not in output


def test_second_set_up_waits_for_the_first(checkout):
    first = checkout.start_and_hold()
    second = checkout.start()
    assert "waiting for it" in second.stdout.readline()
    checkout.go_on()
    first.communicate(timeout=100), second.communicate(timeout=100)
    assert (first.returncode, second.returncode, checkout.installs()) == (0, 0, 1)


def test_a_killed_set_up_is_made_anew(checkout):
    first = checkout.start_and_hold()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=100)
    (checkout.venv / "half").touch()
    checkout.go_on()
    code, output, installs = checkout.run()
    assert (code, installs) == (0, 1) and "anew" in output
    assert not (checkout.venv / "half").exists() and not (checkout.folder / ".venv.old").exists()


def test_uv_of_a_killed_set_up_keeps_the_lock(checkout):
    first = checkout.start_and_hold()
    first.kill()
    second = checkout.start()
    assert "waiting for it" in second.stdout.readline()
    checkout.go_on()
    first.communicate(timeout=100)  # until uv, which writes to the same pipe, has ended
    assert "anew" in second.communicate(timeout=100)[0] and second.returncode == 0


def test_a_copied_venv_is_made_anew(checkout, tmp_path):
    checkout.run()
    other = Checkout(tmp_path / "other")
    shutil.copytree(checkout.venv, other.venv, symlinks=True)
    code, output, installs = other.run()
    assert (code, installs) == (0, 1) and "from another place" in output


def test_a_venv_made_by_hand_is_kept(checkout):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout.venv], check=True)
    (checkout.venv / "mine").touch()
    assert checkout.run()[::2] == (0, 1)
    assert (checkout.venv / "mine").exists()


def test_what_cannot_be_installed_costs_no_venv(checkout):
    checkout.run()
    (checkout.venv / "mine").touch()
    (checkout.folder / "constraints.txt").write_text("torch==none\n")
    (checkout.folder / "refuses").write_text("1")
    code, output, installs = checkout.run()
    assert (code, installs) == (1, 0)
    assert "failed: uv pip install" in output and "The next make tries again" in output
    (checkout.folder / "refuses").write_text("0")
    assert checkout.run()[::2] == (0, 1) and (checkout.venv / "mine").exists()


def test_pip_brings_uv_where_there_is_none(checkout):
    (checkout.venv / "bin").mkdir(parents=True)
    program(checkout.venv / "bin" / "python", PYTHON)
    (checkout.folder / "bin" / "uv").rename(checkout.folder / "wheel")
    assert checkout.run()[::2] == (0, 1)
    pip = "python -m pip --no-input --disable-pip-version-check install --constraint"
    assert f"{pip} constraints.txt uv" in (checkout.folder / "asked").read_text()


@pytest.fixture
def ci(tmp_path):
    """Return a function that runs .ci/run on a root's machine with apt-get and no browser."""
    shutil.copytree(CI, tmp_path / ".ci")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "dirname").symlink_to(shutil.which("dirname"))
    program(programs / "id", "#!/bin/sh\necho 0\n")
    program(programs / "timeout", '#!/bin/sh\nshift\nexec "$@"\n')
    for name in ("apt-get", "make"):
        program(programs / name, f'#!/bin/sh\necho "{name} $*"\n')

    def run(ci="true"):
        command = [shutil.which("bash"), tmp_path / ".ci" / "run"]
        env = {"PATH": str(programs), "CI": ci}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return programs, run


MADE = ["make test", "make docs"]


def test_ci_gets_a_browser(ci):
    _, run = ci
    _, update, install, *made = run()
    assert update.endswith("update") and install.endswith("chromium") and made == MADE


@pytest.mark.parametrize("other", ["not CI", "not root", "no apt-get", "has a browser"])
def test_nobody_else_does(ci, other):
    programs, run = ci
    if other == "not root":
        program(programs / "id", "#!/bin/sh\necho 1000\n")
    elif other == "no apt-get":
        (programs / "apt-get").unlink()
    elif other == "has a browser":
        program(programs / "google-chrome", "#!/bin/sh\n")
    assert run("" if other == "not CI" else "true") == MADE


def test_no_browser_is_no_failure(ci):
    programs, run = ci
    program(programs / "apt-get", "#!/bin/sh\nexit 100\n")
    assert run()[-3:] == ["CI: no Chromium; its tests will be skipped", *MADE]
