"""Bring files to the disk while they are written."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

EVERY = 2**27  # bytes: fewer are on the disk at once


class EarlySync:
    """A context manager that syncs open files in a thread, now and then.

    So the sync at the end, which makes sure of all, has little to wait for. An error is raised
    at the next call or at the end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "sync")
        self._running: Future[None] | None = None
        self._num_bytes = 0

    def __enter__(self) -> Self:
        return self

    def wrote(self, file: int, num_bytes: int) -> None:
        """Note what was written to a file descriptor."""
        self._num_bytes += num_bytes
        if self._num_bytes >= EVERY and (self._running is None or self._running.done()):
            self._check()
            self._num_bytes = 0
            self._running = self._thread.submit(os.fdatasync, file)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self._check()

    def _check(self) -> None:
        if self._running is not None:
            self._running.result()  # a later sync does not repeat the error
