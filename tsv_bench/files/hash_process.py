"""Hash files in a process of its own: `ahead` runs this file, which needs nothing of the rest."""

import hashlib
import os
import select
import signal
import stat
import sys
from collections.abc import Iterable

PIECE = 2**18  # bytes that are read at once: they are hashed while a core's cache has them


def main(paths: Iterable[str]) -> None:
    """Say "NUMBER begun" of each file, then "NUMBER inode bytes changed sha256" or "NUMBER -".

    A byte on the standard input is answered by "last": no other file is begun. Where it is closed,
    whoever asked is gone, and the process ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; who asked ends by it
    asked = Asked()
    for number, path in enumerate(paths):
        if asked.for_last():
            return
        say(f"{number} begun")
        say(f"{number} {hashed(path, asked) or '-'}")


def say(line: str) -> None:
    """Write a line to the standard output at once."""
    os.write(1, f"{line}\n".encode())


class Asked:
    """What is asked for on the standard input."""

    def __init__(self) -> None:
        self._last = False

    def for_last(self) -> bool:
        """Return whether the file at hand is the last one."""
        while select.select([0], [], [], 0)[0]:
            if not os.read(0, 1):
                os._exit(0)
            self._last = True
            say("last")
        return self._last


def hashed(path: str, asked: Asked) -> str | None:
    """Return a file's stamp and sha256; None if it cannot be read, or changes meanwhile."""
    piece, digest = memoryview(bytearray(PIECE)), hashlib.sha256()
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        before = stamp(file)
        while count := os.readv(file, [piece]):
            digest.update(piece[:count])
            asked.for_last()
        after = stamp(file)
        os.close(file)
    except OSError:
        return None
    return f"{after} {digest.hexdigest()}" if after == before else None


def stamp(file: int) -> str:
    """Return an open file's inode, size and time of change."""
    status = os.fstat(file)
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


if __name__ == "__main__":
    main(sys.argv[1:])
