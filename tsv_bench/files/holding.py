"""Hold a file or folder; the system lets go of it when the process ends, however it ends."""

import fcntl
import os
from pathlib import Path


def hold(path: Path) -> int:
    """Hold an existing file or folder; return the descriptor that holds it until it is closed.

    Raises BlockingIOError if another process holds it, FileNotFoundError if it is not there (any
    more), another OSError if the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), path.stat()):  # replaced meanwhile
            raise FileNotFoundError(f"{path} was replaced by another process")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
