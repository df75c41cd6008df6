"""What a file holds: its hash, and a stamp that tells whether it has changed."""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple


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
