"""A signal ends a process as Ctrl-C does, and others' handlers stay."""

import os
import signal
from types import FunctionType

import pytest

from tsv_bench.process.signals import Ended, ended_by_signals, said_of, signal_of


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def bypass(*received):
    raise AssertionError("the signal went past")


def of_launcher(module, name):
    made = FunctionType(bypass.__code__, {"__name__": module}, name)
    assert made.__module__ == module
    return made


SUBMITIT = of_launcher("submitit.core.job_environment", "bypass")
RAY = of_launcher("ray._private.worker", "sigterm_handler")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("handler", [signal.SIG_DFL, SUBMITIT, RAY])
def test_a_signal_is_raised_and_the_handler_is_back_afterwards(number, handler):
    signal.signal(number, handler)
    with pytest.raises(Ended) as caught, ended_by_signals():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is handler
    assert (signal_of(caught.value), said_of(caught.value)) == (number, f"ended by {number.name}")


def test_what_is_ignored_or_handled_stays():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    signal.signal(signal.SIGTERM, bypass)
    with ended_by_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) is bypass


def test_ctrl_c_is_called_an_interruption():
    stop = KeyboardInterrupt()
    assert (signal_of(stop), said_of(stop)) == (signal.SIGINT, "interrupted")
