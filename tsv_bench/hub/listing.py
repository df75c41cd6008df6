"""Which files a repository has, as the hub lists them; nothing in a listing is believed unchecked.

What the hub names becomes paths in the cache. So a listing cannot be made of names that lead
elsewhere, nor of digests and commits that are none.
"""

import json
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from huggingface_hub.utils import filter_repo_objects

COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # git's sha1, sha256
MAX_BYTES = 10**15  # of a file
MAX_NAME, MAX_PART = 1000, 255  # bytes of a name, and of a part of it, as file systems allow
MAX_LICENCE = 100  # characters


@dataclass(frozen=True)
class File:
    """A file of a repository. Raises ValueError if it is none that may lie in the cache."""

    name: str  # with its folders, "data/train-00000-of-00001.parquet"
    size: int  # bytes
    digest: str  # sha256 of the content, or sha1 as git computes it

    def __post_init__(self) -> None:
        if not is_plain(self.name):
            raise ValueError(
                f"it names a file {reprlib.repr(self.name)}, which is no plain relative path"
            )
        if type(self.size) is not int or not 0 <= self.size <= MAX_BYTES:
            raise ValueError(
                f"it says that {self.name} has {reprlib.repr(self.size)} bytes, which is no size"
            )
        if not (isinstance(self.digest, str) and DIGEST.fullmatch(self.digest)):
            raise ValueError(
                f"it gives {self.name} the digest {reprlib.repr(self.digest)}, which has not 40 or "
                f"64 hexadecimal digits"
            )


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a repository at one commit. Raises ValueError if they cannot be one's."""

    commit: str
    licence: str | None
    files: tuple[File, ...]
    damaged: tuple[str, ...] = ()  # files whose hash was found wrong, until they are fetched again

    def __post_init__(self) -> None:
        if not (isinstance(self.commit, str) and COMMIT.fullmatch(self.commit)):
            raise ValueError(
                f"its commit is {reprlib.repr(self.commit)}, which has not 40 hexadecimal digits"
            )
        names = {file.name for file in self.files}
        if len(names) < len(self.files):
            raise ValueError("it names a file twice")
        if both := names & {folder for name in names for folder in folders(name)}:
            raise ValueError(f"it names {reprlib.repr(min(both))} as a file and as a folder")

    def matching(self, patterns: Sequence[str]) -> tuple[File, ...]:
        """Return the files whose names match one of the patterns; all files for no pattern."""
        allowed = list(patterns) or None
        return tuple(
            filter_repo_objects(self.files, allow_patterns=allowed, key=lambda file: file.name)
        )


def is_plain(name: Any) -> bool:
    """Return whether a name can be a file's below any folder, and only there."""
    return (
        isinstance(name, str)
        and name.isprintable()  # no control character, no half of a surrogate pair
        and "\\" not in name
        and not PureWindowsPath(name).drive
        and len(name.encode()) <= MAX_NAME
        and all(
            part not in ("", ".", "..") and len(part.encode()) <= MAX_PART
            for part in name.split("/")
        )
    )


def folders(name: str) -> Iterator[str]:
    """Yield the folders that a file's name has: "a" and "a/b" of "a/b/c"."""
    yield from (str(folder) for folder in PurePosixPath(name).parents if folder.name)


def parse_answer(answer: bytes) -> Listing:
    """Return the listing in the hub's answer, the json of a repository's information.

    Raises ValueError if it is none that can be believed.
    """
    found = parse_json(answer)
    try:
        files = tuple(
            File(entry["rfilename"], entry["size"], digest(entry)) for entry in found["siblings"]
        )
        return Listing(commit=found["sha"], licence=licence(found.get("cardData")), files=files)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it lacks the commit, or a file's name, size or digest") from error


def parse_record(record: str) -> Listing:
    """Return the listing that `record` wrote. Raises ValueError if it is none."""
    found = parse_json(record)
    try:
        return Listing(
            commit=found["commit"],
            licence=licence({"license": found["licence"]}),
            files=tuple(File(*entry) for entry in found["files"]),
            damaged=tuple(found["damaged"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("it lacks what a record has") from error


def record(listing: Listing) -> str:
    """Return the listing as json, to be kept in the cache."""
    return json.dumps(
        {
            "commit": listing.commit,
            "licence": listing.licence,
            "files": [[file.name, file.size, file.digest] for file in listing.files],
            "damaged": sorted(listing.damaged),
        }
    )


def parse_json(content: bytes | str) -> Any:
    """Return what the json holds. Raises ValueError if it is none, or deeper than Python reads."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no json that can be read ({type(error).__name__})") from error


def digest(entry: dict[str, Any]) -> Any:
    """Return a listed file's digest: what is large has a sha256, all else git's sha1."""
    return entry["lfs"]["sha256"] if entry.get("lfs") else entry["blobId"]


def licence(card: Any) -> str | None:
    """Return the licence that a repository's card names, or None if it is none to be shown."""
    found = card.get("license") if isinstance(card, dict) else None
    names = found if isinstance(found, list) else [found]
    if not all(isinstance(name, str) and name.isprintable() for name in names):
        return None
    return ", ".join(names)[:MAX_LICENCE] or None
