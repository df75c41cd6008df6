"""How many cores this process may use."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def num_cores() -> int:
    """Return the number of cores by the process' affinity and its control group, at least 1.

    A share of a core's time counts as a whole one.
    """
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *_quotas()]))


def _quotas() -> list[int]:
    """Return the limits of the control groups that the process is in, as numbers of cores."""
    found = []
    for folder in _groups():
        try:
            if (folder / "cpu.max").exists():  # version 2: "max 100000" or "150000 100000"
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            if quota != "max" and int(quota) > 0:
                found.append(math.ceil(int(quota) / int(period)))
        except (OSError, ValueError, ZeroDivisionError):  # no such controller, or another format
            continue
    return found


def _groups() -> list[Path]:
    """Return the folders that may hold the process' limits: its group's and those above it."""
    try:
        lines = OWN_GROUP.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:  # "0::/a/b", or "4:cpu,cpuacct:/a/b" in version 1
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUP / "cpu" if controllers else CGROUP
        own = root / path.lstrip("/")
        folders += [own, *own.parents[: len(own.relative_to(root).parts)]]
    return folders
