"""Files that are whole or not there, their hashes, and room for them."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name beside ``path``, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_room(
    folder: Path,
    num_bytes: int,
    setting: str = "paths.runs=, paths.checkpoints= or paths.data=",
) -> None:
    """OSError unless ``folder`` can be written to and its disk has ``num_bytes`` free.

    ``setting`` is what chooses another folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_atomically(folder / ".probe", lambda path: path.write_bytes(b"1"))
        (folder / ".probe").unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot write to {folder} ({error.strerror or error}). Choose another folder with "
            f"{setting}."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(
            f"{folder} has {free / 1e6:.0f} MB free, {num_bytes / 1e6:.0f} MB are needed. Make "
            f"room, or choose a folder on another disk."
        )


def check_place(folder: Path, num_bytes: int) -> None:
    """OSError unless ``folder`` can be written and has room. It is not made yet: a merge that is
    refused leaves nothing behind."""
    place = folder.absolute()
    check_room(next(f for f in (place, *place.parents) if f.exists()), num_bytes, "output=")
