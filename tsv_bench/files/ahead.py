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

SUFFIX = ".safetensors"

_hashers: dict[Path, "Hasher"] = {}  # resolved path -> who hashes it, or has hashed it
_at_work: list["Hasher"] = []  # those that may begin more files


def begin_hashing(paths: Iterable[Path]) -> None:
    """Hash safetensors files from now on, if cores are free and torch is still to be imported.

    Of a path that is a folder, those in it. What is wrong with a file is no matter here: who opens
    it says so.
    """
    if torch_is_there():
        return
    asked = {path for hasher in _at_work for path in hasher.paths}
    files: list[Path] = []
    for path in paths:
        with suppress(OSError):
            inside = sorted(path.glob(f"*{SUFFIX}")) or [path]
            files += [f.resolve() for f in inside if f.suffix == SUFFIX and f.is_file()]
    files = [f for f in dict.fromkeys(files) if f not in asked]
    count = min(num_cores() - 1 - len(_at_work), len(files))
    _at_work.extend([Hasher(files[i::count]) for i in range(count)])


@contextmanager
def hashed_ahead(paths: Iterable[Path]) -> Iterator[None]:
    """Hash files until the end of the block; a file that is begun there is finished meanwhile."""
    begin_hashing(paths)
    try:
        yield
    finally:
        while _at_work:
            hasher = _at_work.pop()
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
        self.paths, self._begun, self._found = paths, [], {}
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
                self._begun.append(self.paths[int(number)])
            case [number, inode, num_bytes, changed, digest]:
                found = Stamp(int(inode), int(num_bytes), int(changed)), digest
                self._found[self.paths[int(number)]] = found
            case []:
                self._process.stdin.close()
                self._process.stdout.close()
                self._process.wait()
        return line.strip()
