"""What all benchmarks need: time, and lines that are shown while they run."""

import faulthandler

import pytest


@pytest.fixture(autouse=True)
def no_time_limit():
    """Lift the tests' limit, which ends what hangs and is short for these."""
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def show(capsys):
    """Print a line at once, though pytest captures what is printed."""

    def line(text):
        with capsys.disabled():
            print("\n" + text, end="", flush=True)

    return line
