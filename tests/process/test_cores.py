"""The number of cores is what affinity and control groups leave."""

import os

import pytest

from tsv_bench.process import cores

TWO = "0::/jobs/one\n"
ONE = "4:memory:/elsewhere\n3:cpu,cpuacct:/jobs/one\n"


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine of 16 cores with control groups of its own."""
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(cores, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    return tmp_path


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


def test_without_control_groups_it_is_the_affinity(monkeypatch):
    assert cores.num_cores() == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    assert cores.num_cores() == 2


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 16), ("400000 100000", 4), ("150000 100000", 2), ("20000 100000", 1)],
)
def test_a_quota_counts_rounded_up(machine, limit, expected):
    (machine / "own").write_text(TWO)
    write(machine / "jobs" / "one", cpu_max=f"{limit}\n")
    assert cores.num_cores() == expected


def test_the_smallest_quota_of_all_groups_above_counts(machine):
    (machine / "own").write_text(TWO)
    write(machine / "jobs" / "one", cpu_max="800000 100000\n")
    write(machine / "jobs", cpu_max="300000 100000\n")
    assert cores.num_cores() == 3


def test_the_first_version_of_control_groups_is_read(machine):
    (machine / "own").write_text(ONE)
    folder = machine / "cpu" / "jobs" / "one"
    write(folder, cpu_cfs_quota_us="200000\n", cpu_cfs_period_us="100000\n")
    assert cores.num_cores() == 2
    write(folder, cpu_cfs_quota_us="-1\n")
    assert cores.num_cores() == 16


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "100000 0"])
def test_what_cannot_be_read_is_no_limit(machine, text):
    (machine / "own").write_text(TWO)
    write(machine / "jobs" / "one", cpu_max=text)
    assert cores.num_cores() == 16
