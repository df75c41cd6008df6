"""Make .venv fit pyproject.toml and constraints.txt; `make` runs this before anything else.

Instant when nothing is to be done. Several may run at once: one works, the others wait for it.
Standard library only, since there is no .venv yet.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"  # the place and the hash of the requirements that .venv fits
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
UNFINISHED = VENV / "unfinished"  # there while pip writes; left behind when it was killed
REQUIREMENTS = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]


def main() -> int:
    code = make_venv()
    if code == 0:
        get_browser()
    return code


def make_venv() -> int:
    """Returns the exit code."""
    if is_done():
        return 0
    # Opened for writing because flock on NFS asks for it.
    with open(ROOT / ".setup.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another one is at work in this checkout, waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_done():
            return 0
        return install(lock.fileno())


def is_done() -> bool:
    return PYTHON.exists() and read(STAMP) == stamp()


def read(path: Path) -> str:
    """Empty when there is none; another set-up may remove it at any moment."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def stamp() -> str:
    # The place belongs to it: the scripts in .venv/bin name it, so a copied .venv does not work.
    content = b"".join(path.read_bytes() for path in REQUIREMENTS)
    return f"{VENV}\n{hashlib.sha256(content).hexdigest()}\n"


def install(lock: int) -> int:
    """Returns the exit code. Children inherit the lock: a killed parent's pip still holds it."""
    if VENV.exists() and not is_usable():
        print("set-up: .venv is unfinished or from another place, making it anew", flush=True)
        shutil.rmtree(VENV)
    STAMP.unlink(missing_ok=True)
    print("set-up: installing into .venv; the first time takes minutes and 6 GB", flush=True)
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    steps = []
    if not PYTHON.exists():
        steps.append([sys.executable, "-m", "venv", VENV])
    # --no-input: a question nobody sees is a hang.
    pip = [PYTHON, "-m", "pip", "--no-input", "--disable-pip-version-check", "install"]
    steps.append([*pip, "--constraint", ROOT / "constraints.txt", "--editable", f"{ROOT}[dev]"])
    for step in steps:
        code = subprocess.run(step, pass_fds=[lock], cwd=ROOT).returncode
        if code:
            if code > 0:  # pip gave up by itself and has put back what it had begun
                UNFINISHED.unlink(missing_ok=True)
            print("set-up: failed, see above; the next make tries again", flush=True)
            return 1
    UNFINISHED.unlink()
    new = STAMP.with_suffix(".new")
    new.write_text(stamp())
    os.replace(new, STAMP)
    return 0


def get_browser() -> None:
    """Debian's Chromium, for the tests of the report's page, which are skipped without one.

    Only in CI, as root of a throw-away machine: nobody asked `make` to change their own system.
    Without it only those tests are skipped, hence what goes wrong here fails nothing.
    """
    if not os.environ.get("CI") or os.getuid() != 0 or not shutil.which("apt-get"):
        return
    if any(map(shutil.which, BROWSERS)):
        return
    print("set-up: installing Chromium, for the tests of the page", flush=True)
    apt = ["apt-get", "--quiet=2", "--option=DPkg::Lock::Timeout=120"]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        try:
            code = subprocess.run([*apt, *step], env=env, timeout=600).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            code = error
        if code:
            print(f"set-up: no Chromium ({code}); its tests will be skipped", flush=True)
            return


def is_usable() -> bool:
    if UNFINISHED.exists() or not PYTHON.exists():
        return False
    place = read(STAMP).splitlines()[:1]  # none: made by hand, or its last update failed
    if place and place != [str(VENV)]:
        return False
    return subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next make begins it anew", flush=True)
        sys.exit(130)
