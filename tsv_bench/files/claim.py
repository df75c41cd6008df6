"""Claim an output, so that no two processes write it at once."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tsv_bench.files.holding import hold

TRIES, SECONDS = 20, 0.05  # between tries: whoever removes a dead process's claim holds it so long


@contextmanager
def claimed(output: Path) -> Iterator[None]:
    """Keep other processes from writing the same output until the block ends.

    Raises ValueError if another process has claimed it. Where the file system has no locks,
    nothing is claimed.
    """
    made = [folder for folder in output.parents if not folder.exists()]
    claim = output.with_name(f".{output.name}.claim")
    held = None
    try:
        held = _take(claim, output)
        yield
    finally:
        if held is not None:
            claim.unlink(missing_ok=True)
            os.close(held)
        for folder in made:
            with suppress(OSError):  # another process has put something there, or removed it
                folder.rmdir()


def _take(claim: Path, output: Path) -> int | None:
    for _ in range(TRIES):
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
    raise ValueError(
        f"another process is writing {output} now. Wait until it ends, or name another place."
    )
