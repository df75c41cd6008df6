"""Hash files ahead, on a core that is idle while a command imports what it needs."""

import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tsv_bench.files.content import Stamp
from tsv_bench.process.cores import num_cores

if TYPE_CHECKING:
    from hashlib import _Hash

# Bytes that are read and hashed at once. Between two pieces a thread waits some milliseconds for
# Python's lock, so pieces take longer than that.
PIECE = 2**25

_begun: dict[tuple[Path, Stamp], "tuple[_Hash, int]"] = {}


@contextmanager
def hashed_ahead(paths: Iterable[Path]) -> Iterator[None]:
    """Hash files, one after the other, for as long as the block runs and if a core is free.

    What is wrong with a file is no matter here: who opens it says so.
    """
    stopped = threading.Event()
    thread = threading.Thread(target=_hash_all, args=(list(paths), stopped), daemon=True)
    if num_cores() > 1:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        if thread.ident is not None:
            thread.join()


def begun_sha256(path: Path, stamp: Stamp) -> "tuple[_Hash, int]":
    """Return the sha256 of a file's first bytes and their number, which may be 0."""
    digest, position = _begun.get((path.resolve(), stamp), (hashlib.sha256(), 0))
    return digest.copy(), position


def _hash_all(paths: list[Path], stopped: threading.Event) -> None:
    piece = bytearray(PIECE)
    for path in paths:
        try:
            with open(path, "rb", buffering=0, opener=_without_waiting) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    continue
                key = path.resolve(), Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
                digest, position = hashlib.sha256(), 0
                while not stopped.is_set() and (count := file.readinto(piece)):
                    digest.update(memoryview(piece)[:count])
                    position += count
                _begun[key] = digest, position
        except OSError:
            continue
        if stopped.is_set():
            return


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would be waited for
