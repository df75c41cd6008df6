"""Processes of their own, forked from one that has everything imported.

A new interpreter imports for seconds before a command begins. multiprocessing's fork server does
it once for all; it has computed nothing and started no thread when it forks.
"""

import contextlib
import importlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

TESTS = Path(__file__).resolve().parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["stand_ins.preloaded"])
PATHS = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
COUNT = itertools.count()
LONGEST = 600  # seconds that a held process waits if its test is killed


def ensure_server():
    """Start the server if it is not there."""
    with mock.patch.dict(os.environ, PYTHONPATH=PATHS):  # the server knows no other sys.path
        forkserver.ensure_running()


class Started:
    """A function at work in ``folder``, in a process group of its own that ends with the block.

    The function lies in a module that a process of its own can import, hence not in a test file.
    ``hold``: a module, a function in it, and the number of the call that waits for a signal.
    """

    def __init__(self, folder, function, *arguments, hold=None):
        # Beside the folder: what a command leaves inside is looked at.
        name = f"{folder.name}-process{next(COUNT)}"
        self._out, self._err, self._held = (
            folder.with_name(f"{name}.{end}") for end in ("out", "err", "held")
        )
        for path in (self._out, self._err):
            path.touch()
        files = (self._out, self._err, self._held)
        given = (folder, files, dict(os.environ), hold, function, arguments)
        self._process = SERVER.Process(target=begin, args=given)
        ensure_server()
        self._process.start()

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):  # it has no group yet
                self.send(signal.SIGKILL)
            self._process.kill()
        self._process.join()

    @property
    def code(self):
        """The exit code, minus the signal that ended it, or None while it is at work."""
        return self._process.exitcode

    @property
    def out(self):
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self):
        return self._err.read_text(encoding="utf-8")

    def wait(self):
        self._process.join()
        return self.code

    def wait_until(self, happened):
        while not happened():
            assert self.code is None, f"ended before that: {self.err}"
            time.sleep(0.01)

    def wait_until_held(self):
        self.wait_until(self._held.exists)

    def send(self, number):
        """Send a signal to the process and those that it started."""
        os.killpg(self._process.pid, number)


def begin(folder, files, environment, hold, function, arguments):
    """What the new process does."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    *printed, held = files
    for path, stream in zip(printed, (sys.stdout, sys.stderr), strict=True):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
        stream.reconfigure(encoding="utf-8")
    # Shells start background jobs with SIGINT ignored, nohup with SIGHUP, and children inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if hold:
        wait_in(*hold, held)
    function(*arguments)


def wait_in(module, name, call, path):
    """Let the function wait for a signal from its ``call``-th call on; then the file is there."""
    module, calls, came = importlib.import_module(module), itertools.count(1), threading.Event()
    work = getattr(module, name)

    def held(*arguments, **settings):
        if next(calls) >= call:
            path.touch()
            came.wait(LONGEST)
        return work(*arguments, **settings)

    def handle(number, handler):
        """As signal.signal, and any signal that is handled ends the waiting."""

        def handled(*received):
            came.set()
            handler(*received)

        return before(number, handled if callable(handler) else handler)

    before, signal.signal = signal.signal, handle
    signal.signal(signal.SIGINT, signal.default_int_handler)
    setattr(module, name, held)
