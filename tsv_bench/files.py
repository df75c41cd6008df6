"""Files on disk: written whole or not at all, hashed, stamped, and given room."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Stamp(NamedTuple):
    """What the file system says of a file; a file with another content has another stamp."""

    inode: int
    num_bytes: int
    changed: int  # nanoseconds since 1970


def stamp(path: Path) -> Stamp:
    """Return the stamp of the file at ``path``, following links.

    Raises OSError if there is no file.
    """
    status = path.stat()
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def sha256(path: Path) -> str:
    """Return the sha256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(path: Path) -> str:
    """Return a file's `sha256`, reading the file only once until its stamp changes."""
    return _sha256_of(path.resolve(), stamp(path))


@cache
def _sha256_of(path: Path, _: Stamp) -> str:
    return sha256(path)


def hidden_beside(path: Path, ending: str = "tmp") -> Path:
    """Return an unused path in the folder of ``path``: .<name>.<random>.<ending>"""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{ending}")


def replace_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file or folder under a temporary name beside ``path``, then rename it into place.

    ``write`` gets the temporary path. A file may replace an older one, a folder may not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = hidden_beside(path)
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def check_room(
    folder: Path,
    num_bytes: int,
    setting: str = "paths.runs=, paths.checkpoints= or paths.data=",
) -> None:
    """Check that ``folder`` can be written to and its disk has ``num_bytes`` free.

    ``setting`` names the setting that chooses another folder. Raises OSError if the check fails.
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
    """Check as `check_room` does, without making ``folder``: a refused merge leaves nothing behind.

    Raises OSError if the check fails.
    """
    place = folder.absolute()
    check_room(next(f for f in (place, *place.parents) if f.exists()), num_bytes, "output=")
