"""Spread pieces of work over several devices: whichever is free takes the next one."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeVar

import torch

KINDS = (ValueError, OSError, torch.OutOfMemoryError)  # of errors that a user can cause

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Stopped(Exception):
    """The work is over, because a piece of it failed or nobody wants the rest."""


class Spread:
    """Work on several devices, by a thread for each. One spread at a time."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = list(devices)
        # For what threads of one process cannot do side by side: `task_vectors.streaming` changes
        # the number of torch's threads, which all of them share.
        self.alone = threading.Lock()
        self._over = threading.Event()

    def check(self) -> None:
        """Raise Stopped if the work is over: a step within a piece begins with it."""
        if self._over.is_set():
            raise Stopped

    def run(
        self,
        work: Callable[[int, Piece], Result],
        pieces: Iterable[Piece],
        name: Callable[[Piece], str],
    ) -> Iterator[tuple[int, Result]]:
        """Yield (number of a piece, what ``work`` gives of it) as pieces end.

        ``work`` gets the number of a device and a piece. A piece is taken from ``pieces`` when a
        device is free for it, by the thread that iterates. If one fails, the others end at their
        next step, and its error is raised with its ``name`` and the device, as the one of `KINDS`
        that it is, or RuntimeError.
        """
        coming, free = enumerate(pieces), [*range(len(self.devices))]
        running: dict[Future, tuple[int, int, str]] = {}
        settings = (torch.get_num_threads(), torch.is_grad_enabled())  # a new thread has others
        pool = ThreadPoolExecutor(len(free), "device", initializer=self._begin, initargs=settings)
        try:
            while True:
                while free and (following := next(coming, None)):
                    (number, piece), device = following, free.pop(0)
                    future = pool.submit(copy_context().run, work, device, piece)
                    running[future] = (number, device, name(piece))
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number, device, called = running.pop(future)
                    free.append(device)
                    yield number, self._result(future, called, device)
        finally:
            self._over.set()
            pool.shutdown(cancel_futures=True)
            self._over.clear()

    def _begin(self, threads: int, gradients: bool) -> None:
        torch.set_grad_enabled(gradients)
        with self.alone:
            torch.set_num_threads(threads)

    def _result(self, future: Future, called: str, device: int) -> object:
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, KeyboardInterrupt):
            raise error
        said = f"{called} on {self.devices[device]}: {error}"
        kind = next((kind for kind in KINDS if isinstance(error, kind)), RuntimeError)
        raise kind(said) from error
