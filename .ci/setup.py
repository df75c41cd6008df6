"""Make .venv fit pyproject.toml and constraints.txt; `make` runs this before anything else.

uv installs. This file adds what make and uv lack: it returns at once if nothing is to be done, lets
one set-up at a time work in a checkout, and replaces a .venv that a killed set-up left behind or
that was copied from another folder. Standard library only, since there is no .venv yet.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV, OLD = ROOT / ".venv", ROOT / ".venv.old"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"  # the place and the hash of what .venv fits; empty while uv writes
CONSTRAINTS = ["--constraint", "constraints.txt"]
PIP = ["-m", "pip", "--no-input", "--disable-pip-version-check"]  # a question nobody sees is a hang


def main() -> None:
    with open(ROOT / ".setup.lock", "w") as file:  # for writing because flock on NFS asks for it
        lock = file.fileno()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another one is at work in this checkout, waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == stamp():
            return
        # Children inherit the lock: the uv of a killed set-up still holds it.
        install(lambda *command: subprocess.run(command, cwd=ROOT, pass_fds=[lock], check=True))


def stamp() -> str:
    names = ("pyproject.toml", "constraints.txt", "tsv_bench/__init__.py")  # the last: the version
    content = b"".join((ROOT / name).read_bytes() for name in names)
    return f"{VENV}\n{hashlib.sha256(content).hexdigest()}\n"


def install(run) -> None:
    shutil.rmtree(OLD, ignore_errors=True)
    if VENV.exists() and not is_usable():
        print("set-up: .venv is unfinished or from another place, making it anew", flush=True)
        VENV.rename(OLD)  # in one step: a kill within rmtree would leave half a .venv in its place
        shutil.rmtree(OLD)
    print("set-up: installing into .venv; the first time takes minutes and 7 GB", flush=True)
    if not VENV.exists():
        VENV.mkdir()
        STAMP.touch()
        run(sys.executable, "-m", "venv", "--without-pip", VENV)
    uv = next(filter(runs, ("uv", VENV / "bin" / "uv")), None)
    if uv is None:
        run(PYTHON, "-m", "ensurepip")
        run(PYTHON, *PIP, "install", *CONSTRAINTS, "uv")
        uv = VENV / "bin" / "uv"
    wanted = ["--python", PYTHON, *CONSTRAINTS, "--editable", ".[all,dev]"]
    # First without writing: a misspelt version or a missing network costs no .venv that works.
    run(uv, "pip", "install", "--dry-run", "--quiet", *wanted)
    STAMP.write_text("")
    # With PYTHONDONTWRITEBYTECODE set, every process would compile what it imports.
    compiled = ["--compile-bytecode"] if sys.dont_write_bytecode else []
    run(uv, "pip", "install", *compiled, *wanted)
    new = STAMP.with_suffix(".new")
    new.write_text(stamp())
    os.replace(new, STAMP)


def is_usable() -> bool:
    """Whether uv can go on from this .venv; one without a stamp was made by hand."""
    made_here = not STAMP.exists() or STAMP.read_text().startswith(f"{VENV}\n")
    return made_here and runs(PYTHON)


def runs(program: str | Path) -> bool:
    try:
        return subprocess.run([program, "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"set-up: failed: {shlex.join(map(str, error.cmd))}\nThe next make tries again.")
    except KeyboardInterrupt:
        sys.exit("\nset-up: interrupted; the next make begins it anew")
