"""Progress bars: as tqdm draws them on a terminal and in a notebook, and elsewhere a few lines.

A bar that is drawn into a file fills it. There it says a line when a stage starts, one when it
ends, and at most one each 30 seconds between. tqdm's environment variables (TQDM_DISABLE=1,
TQDM_MININTERVAL=60, ...) mean here what they mean elsewhere.
"""

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import std

with warnings.catch_warnings():
    warnings.simplefilter("ignore", std.TqdmWarning)  # a notebook may have no widgets
    from tqdm.autonotebook import tqdm

# Settings of bars that are lines; those that the environment has stay as it says. miniters=1: the
# time alone decides, whatever the speed was before.
OF_LINES = {
    "mininterval": 30.0,  # seconds
    "miniters": 1,
    "bar_format": "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
}

Bar = std.tqdm  # what `bar` returns is one

_shown: ContextVar[bool] = ContextVar("shown", default=True)


def bar(steps: Iterable | None = None, *, disable: bool = False, **settings: Any) -> Bar:
    """Return a bar with tqdm's ``settings`` that counts ``steps``, or what `update` is told."""
    if disable or not _shown.get():
        settings["disable"] = True  # not given else: the environment may say so
    if tqdm is not std.tqdm or sys.stderr.isatty():
        return tqdm(steps, **settings)
    own = {key: value for key, value in OF_LINES.items() if f"TQDM_{key.upper()}" not in os.environ}
    return Lines(steps, **own, **settings)


@contextmanager
def showing(shown: bool) -> Iterator[None]:
    """Show bars within the block, or do not."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


class Lines(Bar):
    """A bar that writes whole lines. One with a ``delay`` says its end alone, if it takes so long.

    tqdm calls `display` also when others have written, hence the clock of its own.
    """

    monitor_interval = 0  # no thread that draws bars which have stalled
    _said: float | None = None  # when the last line was written

    def __iter__(self) -> Iterator:
        """Count the steps. One that is left says no last line: an error or Ctrl-C has its own."""
        for step in self.iterable:
            yield step
            self.update()
        self.close()

    def __del__(self) -> None:
        self._end()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line if it is the first, or if the last one was `mininterval` ago."""
        now = self._time()
        last = self.start_t if self._said is None and self.delay > 0 else self._said
        if last is None or now - last >= self.mininterval:
            self._write(now)

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: lines stay."""

    def close(self) -> None:
        """Write the last line, and be done."""
        if self.disable:
            return
        now = self._time()
        if now - self.start_t >= self.delay:
            self._write(now)
        self._end()

    def _end(self) -> None:
        if not getattr(self, "disable", True):  # not there if its settings were refused
            self.disable = True
            self._decr_instances(self)

    def _write(self, now: float) -> None:
        self._said = now
        self.fp.write(f"{self}\n")
        self.fp.flush()
