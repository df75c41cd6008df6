"""Signals that ask a process to end: what is finished is kept, temporaries are removed."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGTERM, signal.SIGHUP)  # as Ctrl-C
OF_LAUNCHERS = ("submitit.core.job_environment.bypass", "ray._private.worker.sigterm_handler")


class Ended(KeyboardInterrupt):
    """A signal has asked the process to end; the argument is the signal."""


def signal_of(stop: KeyboardInterrupt) -> signal.Signals:
    """Return the signal that asked for an end."""
    return stop.args[0] if isinstance(stop, Ended) else signal.SIGINT


def said_of(stop: KeyboardInterrupt) -> str:
    """Return in words how a process was asked to end."""
    return f"ended by {signal_of(stop).name}" if isinstance(stop, Ended) else "interrupted"


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise Ended on SIGTERM and SIGHUP, unless they are ignored (nohup) or handled already.

    submitit ignores SIGTERM aloud, and Ray raises SystemExit; both are replaced. Not under
    torchrun, whose processes may wait for each other outside Python for long.
    """

    def end(number: int, frame: object) -> None:
        raise Ended(signal.Signals(number))

    here = threading.current_thread() is threading.main_thread() and "LOCAL_RANK" not in os.environ
    before = {number: signal.getsignal(number) for number in ENDING if here}
    before = {n: handler for n, handler in before.items() if _is_free(handler)}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_free(handler: object) -> bool:
    name = f"{getattr(handler, '__module__', '')}.{getattr(handler, '__name__', '')}"
    return handler is signal.SIG_DFL or name in OF_LAUNCHERS
