"""What becomes of a sweep when Ray loses a job or its head, with a stand-in for Ray."""

import math
import signal
import socket
import sys
from types import SimpleNamespace

import pytest

from tsv_bench.cli.launchers import ray_jobs
from tsv_bench.cli.sweep.elsewhere import RAY
from tsv_bench.cli.sweep.job import JobFailed


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


def get(job):
    if isinstance(job, Exception):
        raise job
    return job


@pytest.fixture
def head():
    """The head of a cluster: a socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def core(head, monkeypatch):
    """The module of the plugin, with a Ray whose jobs have ended at once, but for None."""
    address = "{}:{}".format(*head.getsockname())
    ray = SimpleNamespace(
        get=get,
        wait=lambda jobs, timeout: ([job for job in jobs if job is not None], []),
        get_runtime_context=lambda: SimpleNamespace(gcs_address=address),
        cluster_resources=lambda: {"CPU": 2.0},
        shutdown=lambda: None,
        exceptions=SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError),
    )
    start = lambda settings: signal.signal(signal.SIGTERM, signal.SIG_IGN)  # noqa: E731
    found, below = SimpleNamespace(), SimpleNamespace(ray=ray, start_ray=start)
    monkeypatch.setitem(sys.modules, RAY + "_core", found)
    monkeypatch.setitem(sys.modules, RAY + "_launcher_util", below)
    return found


@pytest.mark.parametrize("by_results", [False, True])
def test_the_jobs_after_a_lost_one_are_waited_for(by_results, core):
    told = []
    ray_jobs.survive("tsv-bench", lambda *of: told.append(of), by_results, {})
    core.start_ray({})
    crashed, wrong = RayError("It died.\nMore."), RayTaskError("Traceback\nNo module 'x'")
    results = [core.ray.get(job) for job in (crashed, "result", wrong)]
    assert told == [(0, "lost by Ray: It died."), (2, "lost by Ray: No module 'x'")]
    assert results[1] == "result"
    if by_results:
        with pytest.raises(JobFailed, match="It died"):
            _ = results[0].return_value
    else:
        assert math.isnan(results[0].return_value)


def test_ray_does_not_take_the_signal_that_ends_a_sweep(core):
    before = signal.getsignal(signal.SIGTERM)
    ray_jobs.survive("tsv-bench", print, False, {})
    core.start_ray({})
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_lost_head_ends_the_sweep_before_ray_ends_the_process(core, head, monkeypatch, capsys):
    ray_jobs.survive("tsv-bench", print, False, {})
    monkeypatch.setenv(ray_jobs.TIMEOUT, "0")
    core.start_ray({})
    head.close()
    with pytest.raises(SystemExit, match="1"):
        core.ray.get(None)
    assert "error: the head of the Ray cluster, 127.0.0.1:" in capsys.readouterr().err


def test_a_cluster_that_cannot_be_joined_is_a_mistake(core, monkeypatch, capsys):
    def start(settings):
        raise ConnectionError("no cluster here")

    monkeypatch.setattr(sys.modules[RAY + "_launcher_util"], "start_ray", start)
    ray_jobs.survive("tsv-bench", print, False, {})
    with pytest.raises(SystemExit, match="1"):
        core.start_ray({})
    assert capsys.readouterr().err == "tsv-bench: error: no cluster here\n"


def test_who_asks_for_more_than_there_is_will_wait_and_hears_of_it(core, capsys):
    ray_jobs.survive("tsv-bench", print, False, {"num_gpus": 0.5, "num_cpus": 2})
    core.start_ray({})
    [line] = capsys.readouterr().err.splitlines()
    assert "asks for 0.5 GPU, and Ray's machines have 0: jobs wait" in line
    assert line.endswith(" hydra.launcher.ray.remote.num_gpus=0")


def test_a_head_has_time_to_come_back(head, monkeypatch):
    address = "{}:{}".format(*head.getsockname())
    monkeypatch.setenv(ray_jobs.TIMEOUT, "0")
    found = ray_jobs.Head(address)
    found.check()
    head.close()
    monkeypatch.delenv(ray_jobs.TIMEOUT)
    ray_jobs.Head(address).check()
    with pytest.raises(ray_jobs.HeadLost, match=address):
        found.check()
