"""Jobs of Ray's launcher, of which one that is lost would end the whole sweep otherwise.

The plugin takes what each job returns, one after the other. That raises for a job whose process was
killed more often than `max_retries`, and the others are lost with it. If the head of the cluster is
lost, Ray ends the process that was started, without a word about what is finished.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

from hydra.core.utils import JobReturn, JobStatus

from tsv_bench.cli.sweep.elsewhere import RAY
from tsv_bench.cli.sweep.job import JobFailed

LOOK = 1.0  # seconds between two looks for the head
# So many seconds after the head, Ray ends the process. The sweep ends before, after a share of it.
TIMEOUT, BY_DEFAULT, SHARE = "RAY_gcs_rpc_server_reconnect_timeout_s", 60.0, 0.5


class HeadLost(OSError):
    """The head of the cluster does not answer."""


class Head:
    """The head of the cluster, at HOST:PORT."""

    def __init__(self, address: str) -> None:
        self._address, self._silent_since = address, None
        self._patience = SHARE * float(os.environ.get(TIMEOUT, BY_DEFAULT))

    def check(self) -> None:
        """Raise HeadLost if it has not answered for long."""
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK).close()
        except OSError:
            now = time.monotonic()
            self._silent_since = self._silent_since or now
            if now - self._silent_since >= self._patience:
                raise HeadLost(
                    f"the head of the Ray cluster, {self._address}, does not answer any more. What "
                    f"was finished is kept; the same command makes the rest, on a new cluster."
                ) from None
        else:
            self._silent_since = None


def survive(
    program: str, lost: Callable[[int, str], Any], by_results: bool, wanted: Mapping[str, Any]
) -> None:
    """Let Ray's launcher wait for every job of a sweep, whatever becomes of one.

    ``lost``: is told the number of a job that Ray has given up, and why. ``by_results``: whether
    the sweeper is to see that as a failure. ``wanted``: what a job asks Ray for. If the head is
    lost, the process ends.
    """
    plugin, below = (import_module(RAY + name) for name in ("_core", "_launcher_util"))
    ray, numbers, heads = below.ray, count(), []

    def leave(error: Exception) -> NoReturn:
        print(f"{program}: error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)

    def start_ray(settings: Any) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        try:
            below.start_ray(settings)
        except (OSError, RuntimeError, ray.exceptions.RayError) as error:
            leave(error)
        signal.signal(signal.SIGTERM, handler)  # in place of Ray's
        heads[:] = [Head(ray.get_runtime_context().gcs_address)]
        for line in lacking(wanted, ray.cluster_resources()):
            print(f"{program}: {line}", file=sys.stderr)

    def get(job: Any) -> JobReturn:
        number = next(numbers)
        try:
            return returned(ray, job, heads[0].check)
        except HeadLost as error:
            ray.shutdown()  # or it ends the process while the sweep ends
            leave(error)
        except ray.exceptions.RayError as error:
            why = f"lost by Ray: {said_of(ray, error)}"
            lost(number, why)
            return failed(why, by_results)

    plugin.ray, plugin.start_ray = SimpleNamespace(get=get), start_ray


def lacking(wanted: Mapping[str, Any], there: Mapping[str, float]) -> Iterator[str]:
    """Yield what to say of each thing that a job asks for and all machines together have not."""
    for key, name in (("num_gpus", "GPU"), ("num_cpus", "CPU")):
        asked, found = wanted.get(key) or 0, there.get(name, 0)
        if asked > found:
            yield (
                f"a job asks for {asked:g} {name}, and Ray's machines have {found:g}: jobs wait "
                f"until one joins. To ask for less: hydra.launcher.ray.remote.{key}={found:g}"
            )


def returned(ray: ModuleType, job: Any, check: Callable[[], Any]) -> JobReturn:
    """Wait for a job and return what it has, while ``check`` raises nothing."""
    while not ray.wait([job], timeout=LOOK)[0]:
        check()
    return ray.get(job)


def said_of(ray: ModuleType, error: Exception) -> str:
    """Return in a line why Ray has no result: of an error in Python the end of its traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if isinstance(error, ray.exceptions.RayTaskError) else 0]


def failed(why: str, by_results: bool) -> JobReturn:
    """Return what a job has that failed, as `recorded` does."""
    if by_results:
        return JobReturn(status=JobStatus.FAILED, _return_value=JobFailed(why))
    return JobReturn(status=JobStatus.COMPLETED, _return_value=float("nan"))
