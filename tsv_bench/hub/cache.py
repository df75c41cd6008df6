"""A repository of the hub as it lies in huggingface_hub's cache (HF_HOME).

Beside its files, in ``<repository>/tsv_bench/``, stands what it listed when it was first asked:
commit, names, sizes and hashes. So it can be told without a network whether everything is here, and
what is fetched later belongs to the same commit.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

from tsv_bench.files import replace_atomically


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it fetches; HF_HOME moves it."""
    return Path(constants.HF_HUB_CACHE)


@dataclass(frozen=True)
class File:
    name: str  # with folders, "data/train-00000-of-00001.parquet"
    size: int  # bytes
    digest: str  # 64 digits: sha256 of the content; 40: sha1 as git computes it


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at one commit."""

    commit: str
    licence: str | None
    files: tuple[File, ...]
    damaged: tuple[str, ...] = ()  # names whose hash was found wrong, until fetched again

    def matching(self, patterns: Sequence[str]) -> tuple[File, ...]:
        """The files with such names; all for no pattern."""
        allowed = list(patterns) or None
        return tuple(
            filter_repo_objects(self.files, allow_patterns=allowed, key=lambda file: file.name)
        )


@dataclass(frozen=True)
class Repository:
    kind: str  # "dataset" or "model"
    name: str  # "owner/name"
    revision: str | None  # None: the main branch

    @property
    def home(self) -> Path:
        """Its folder in the cache, named as huggingface_hub does."""
        return cache_folder() / "--".join([f"{self.kind}s", *self.name.split("/")])

    @property
    def reference(self) -> str:
        return self.revision or constants.DEFAULT_REVISION

    @property
    def page(self) -> str:
        prefix = "datasets/" if self.kind == "dataset" else ""
        return f"{constants.ENDPOINT}/{prefix}{self.name}"

    @property
    def record(self) -> Path:
        """The file that keeps the listing."""
        return self.home / "tsv_bench" / f"{quote(self.reference, safe='')}.json"

    def snapshot(self, listing: Listing) -> Path:
        """The folder with the files under their own names."""
        return self.home / "snapshots" / listing.commit

    def content(self, file: File) -> Path:
        """Where huggingface_hub keeps the content of a file."""
        return self.home / "blobs" / file.digest

    def partial(self, file: File) -> Path:
        """The beginning of the content that an interrupted download left."""
        return self.home / "blobs" / f"{file.digest}.part"

    def listing(self) -> Listing | None:
        """As recorded; None when the hub was not asked yet, or the record is unreadable."""
        try:
            found = json.loads(self.record.read_text())
            return Listing(
                commit=found["commit"],
                licence=found["licence"],
                files=tuple(File(*entry) for entry in found["files"]),
                damaged=tuple(found["damaged"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, listing: Listing) -> None:
        """Record the listing, and the commit as that of the revision."""
        found = {
            "commit": listing.commit,
            "licence": listing.licence,
            "files": [[file.name, file.size, file.digest] for file in listing.files],
            "damaged": sorted(listing.damaged),
        }
        replace_atomically(self.record, lambda path: path.write_text(json.dumps(found)))
        # huggingface_hub prunes snapshots that no reference names.
        if listing.commit != self.revision:
            reference = self.home / "refs" / self.reference
            replace_atomically(reference, lambda path: path.write_text(listing.commit))

    def keep_damaged(self, listing: Listing, names: Sequence[str]) -> None:
        """Record that these files, and no others, have a wrong hash."""
        if set(names) != set(listing.damaged):
            self.keep(replace(listing, damaged=tuple(names)))


def size(path: Path) -> int:
    """In bytes; 0 where there is no file."""
    return path.stat().st_size if path.exists() else 0


def intact(path: Path, file: File) -> bool:
    """The content has the hash that the repository lists."""
    if len(file.digest) == 64:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(2**20):
            digest.update(chunk)
    return digest.hexdigest() == file.digest
