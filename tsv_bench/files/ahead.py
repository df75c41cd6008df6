"""Hash files ahead, on cores that are idle while a command imports what it needs.

By other processes: importing keeps Python's lock, so that a thread got half of its time.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tsv_bench.files import hash_process
from tsv_bench.files.content import Stamp
from tsv_bench.process.cores import num_cores

_hashers: dict[Path, "Hasher"] = {}  # resolved path -> who hashes it, or has hashed it


@contextmanager
def hashed_ahead(paths: Iterable[Path]) -> Iterator[None]:
    """Hash files while the block runs, if cores are free and torch is still to be imported.

    A file that is begun at its end is finished meanwhile. What is wrong with a file is no matter
    here: who opens it says so.
    """
    paths = list(dict.fromkeys(path.resolve() for path in paths))
    count = 0 if torch_is_there() else min(num_cores() - 1, len(paths))
    hashers = [Hasher(paths[i::count]) for i in range(count)]
    try:
        yield
    finally:
        for hasher in hashers:
            _hashers.update(dict.fromkeys(hasher.begun(), hasher))


def torch_is_there() -> bool:
    """Return whether torch is imported already, so that there is nothing to wait for."""
    return "torch" in sys.modules


def is_hashed_ahead(path: Path) -> bool:
    """Return whether another process hashes the file, or has hashed it."""
    return path.resolve() in _hashers


def sha256_ahead(path: Path, stamp: Stamp) -> str | None:
    """Return the sha256 of a file that `is_hashed_ahead`, waiting for it.

    None if the file could not be read or had another stamp.
    """
    path = path.resolve()
    return _hashers[path].sha256(path, stamp)


class Hasher:
    """A process that hashes files, one after the other."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths, self._begun, self._found = paths, [], {}
        self._lock, self._stopped = threading.Lock(), False
        # Without site-packages: it is there in a fiftieth of a second.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", hash_process.__file__, *paths],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def begun(self) -> list[Path]:
        """Let it begin no other file; return those that it has begun."""
        self._stopped = True
        with suppress(OSError, ValueError):  # where it has ended
            os.write(self._process.stdin.fileno(), b".")
        with self._lock:
            while self._read() not in ("last", ""):
                pass
            return list(self._begun)

    def sha256(self, path: Path, stamp: Stamp) -> str | None:
        """Return the sha256 of a file, or None if it has none with this stamp."""
        with self._lock:
            while path not in self._found and self._read():
                pass
            while self._stopped and path == self._begun[-1] and self._read():
                pass  # it ends
        of_what, digest = self._found.get(path, (None, None))
        return digest if of_what == stamp else None

    def _read(self) -> str:
        """Take in a line of its output and return it; "": it has ended."""
        if self._process.stdout.closed:
            return ""
        line = self._process.stdout.readline().decode()
        match line.split():
            case [number, "begun"]:
                self._begun.append(self._paths[int(number)])
            case [number, inode, num_bytes, changed, digest]:
                found = Stamp(int(inode), int(num_bytes), int(changed)), digest
                self._found[self._paths[int(number)]] = found
            case []:
                self._process.stdin.close()
                self._process.stdout.close()
                self._process.wait()
        return line.strip()
