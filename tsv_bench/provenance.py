"""Where a number comes from: commit, versions, machine, memory."""

import platform
import resource
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

import tsv_bench

CHECKOUT = Path(tsv_bench.__file__).parents[1]


@cache
def commit() -> str:
    """The checkout's commit, "-dirty" when files differ from it; else the installed version."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(CHECKOUT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    if (CHECKOUT / ".git").exists():
        try:
            dirty = git("status", "--porcelain", "--untracked-files=no")
            return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if dirty else "")
        except (OSError, subprocess.CalledProcessError):
            pass
    return f"tsv_bench {tsv_bench.__version__}, no git checkout"


def versions() -> dict[str, str]:
    packages = ("torch", "open_clip_torch", "datasets", "numpy", "pillow")
    ours = {"python": platform.python_version(), "tsv_bench": tsv_bench.__version__}
    return ours | {name: version(name) for name in packages}


def machine(device: str) -> str:
    """What the numbers were computed on, without naming the machine."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def forget_peak_memory() -> None:
    """Let `peak_memory` count from now on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes; mapped pages included.

    Since `forget_peak_memory`, where that was called and the system can.
    """
    try:
        # Not ru_maxrss, which a child process takes over from its parent.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
