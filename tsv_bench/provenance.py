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
    """Return the checkout's commit, with "-dirty" if tracked files were changed.

    An installed package without a checkout gives its version instead.
    """

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
    """Return the versions of Python and of the packages that numbers depend on."""
    packages = ("torch", "open_clip_torch", "datasets", "numpy", "pillow")
    ours = {"python": platform.python_version(), "tsv_bench": tsv_bench.__version__}
    return ours | {name: version(name) for name in packages}


def machine(device: str) -> str:
    """Return the kind of GPU, or of processor with its threads; the machine stays unnamed.

    Of several GPUs, as in "cuda:0,cuda:1", also how many.
    """
    first, *others = device.split(",")
    if first.startswith("cuda"):
        count = f"{1 + len(others)} x " if others else ""
        return count + torch.cuda.get_device_name(first)
    return f"{processor()}, {torch.get_num_threads()} threads"


def processor() -> str:
    """Return the name of the processor's model, or of its architecture if that is all there is."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def forget_peak_memory() -> None:
    """Make `peak_memory` count from now on. Only Linux can do this."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Return the largest resident memory of this process in bytes, mapped pages included.

    It counts from the start of the process, or from `forget_peak_memory` on Linux.
    """
    try:
        # Not ru_maxrss: a child process inherits it from its parent.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
