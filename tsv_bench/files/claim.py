"""Claim an output, so that no two processes write it at once."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tsv_bench.files.holding import hold

TRIES, SECONDS = 20, 0.05  # between tries: whoever removes a dead process's claim holds it so long
NOTICE = 3.0  # seconds of waiting before it is said

log = logging.getLogger(__name__)


@contextmanager
def claimed(output: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from writing the same output until the block ends.

    ``wait``: until no other process has claimed it. Else raises ValueError if one has. Where the
    file system has no locks, nothing is claimed.
    """
    made = [folder for folder in output.parents if not folder.exists()]
    claim = output.with_name(f".{output.name}.claim")
    held = None
    try:
        held = _take(claim, output, wait)
        yield
    finally:
        if held is not None:
            claim.unlink(missing_ok=True)
            os.close(held)
        for folder in made:
            with suppress(OSError):  # another process has put something there, or removed it
                folder.rmdir()


def _take(claim: Path, output: Path, wait: bool) -> int | None:
    tries, began, said = 0, time.monotonic(), False
    while wait or tries < TRIES:
        tries += 1
        claim.parent.mkdir(parents=True, exist_ok=True)
        try:
            claim.touch()
        except FileNotFoundError:
            continue  # the process that held it has just removed the folder that it had made
        try:
            return hold(claim)
        except FileNotFoundError:
            continue  # the process that held it has just let go
        except BlockingIOError:
            time.sleep(SECONDS)
        except OSError:
            claim.unlink(missing_ok=True)
            return None
        if wait and not said and time.monotonic() - began > NOTICE:
            said = True
            log.info(f"waiting for another process, which is writing {output}")
    raise ValueError(
        f"another process is writing {output} now. Wait until it ends, or name another place."
    )
