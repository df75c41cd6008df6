"""What a file holds: its hash, and a stamp that tells whether it has changed."""

import hashlib
import stat
from collections.abc import Hashable, Mapping
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


MOST_BYTES = 16 * 2**20  # of a file that describes others; in results/ 43 kB are the most


def read_small(path: Path) -> bytes:
    """Return the content of a small file, such as a record.

    Raises ValueError if it is no regular file (a pipe would never end) or larger than
    `MOST_BYTES`, OSError if it cannot be read.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no regular file")
    if status.st_size > MOST_BYTES:
        raise ValueError(f"{path} has {status.st_size} bytes, not up to {MOST_BYTES}")
    return Path(path).read_bytes()


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


def repeated(contents: Mapping[str, Hashable]) -> list[list[str]]:
    """Return the tasks whose files have the same content, those of one content together."""
    tasks_of: dict[Hashable, list[str]] = {}
    for task, content in contents.items():
        tasks_of.setdefault(content, []).append(task)
    return [tasks for tasks in tasks_of.values() if len(tasks) > 1]
