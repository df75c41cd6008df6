"""A Ray cluster of two machines, which are processes here, and each can be lost."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stand_ins.commands import PROCESS

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": PATHS}
SETTINGS["RAY_memory_monitor_refresh_ms"] = "0"  # it kills jobs where others use the memory
HEAD_IS_LOST = {"RAY_gcs_rpc_server_reconnect_timeout_s": "12"}  # not 60, to a sweep
# It is told to end, and ends all of its machine, when the process of the tests is no more.
START = (
    "import ctypes, runpy, signal; ctypes.CDLL(None).prctl(1, signal.SIGTERM);"
    "runpy.run_module('ray.scripts.scripts', run_name='__main__', alter_sys=True)"
)
LONGEST = 300  # seconds that anything may take on a busy machine


def until(happened, *processes):
    """Wait for something while these processes are at work."""
    end = time.monotonic() + LONGEST
    while not (found := happened()):
        assert time.monotonic() < end, "it did not happen"
        for process in processes:
            assert process.poll() is None, f"{process.args} ended before that"
        time.sleep(0.05)
    return found


class Machine:
    """A node of a Ray cluster with one core, in a session of its own."""

    def __init__(self, *arguments):
        more = ("--block", "--num-cpus=1", "--object-store-memory=80000000")
        more += ("--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0")
        command = [sys.executable, "-c", START, "start", *more, *arguments]
        self.process = subprocess.Popen(
            command, env={**os.environ, **SETTINGS}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def processes(self):
        """The numbers of its processes: of the session that it began."""
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] not in "ZX":
                    yield int(entry.name)

    def has(self, process):
        return process in self.processes()

    def lose(self):
        """kill -9 of all of it."""
        while left := [*self.processes()]:
            for number in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.02)
        self.process.wait()


class Cluster:
    """Two machines; the address of the first."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        head = ("--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false")
        self.first, self.second = Machine(*head), None
        until(lambda: is_open(port), self.first.process)
        self.second = Machine(f"--address={self.address}")

    def lose(self):
        for machine in filter(None, (self.second, self.first)):
            machine.lose()

    @contextlib.contextmanager
    def start(self, folder, *arguments):
        """A sweep of tsv-bench on the cluster, in a process that ends with the block."""
        line = ["hydra/launcher=ray_cluster", f"hydra.launcher.ray.init.address={self.address}"]
        line += ["hydra.launcher.ray.remote.num_gpus=0", *arguments]
        with subprocess.Popen(
            [sys.executable, "-c", PROCESS.format("bench"), *line],
            cwd=folder, env={**os.environ, **SETTINGS, **HEAD_IS_LOST}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def two_machines():
    """A cluster that ends with the block, whatever happens in it."""
    # Not pytest's folder: names of sockets may have 107 letters.
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        cluster = None
        try:
            cluster = Cluster(folder)
            yield cluster
        finally:
            if cluster:
                cluster.lose()
