"""Claim an output, so that no two processes write it at once."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    output.parent.mkdir(parents=True, exist_ok=True)
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
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _take(claim: Path, output: Path) -> int | None:
    for _ in range(TRIES):
        claim.touch()
        try:
            return hold(claim)
        except FileNotFoundError:
            continue  # the process that held it has just let go
        except BlockingIOError:
            time.sleep(SECONDS)
        except OSError:
            return None
    raise ValueError(
        f"another process is writing {output} now. Wait until it ends, or name another place."
    )
