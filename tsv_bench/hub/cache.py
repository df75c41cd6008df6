"""Repositories of the hub in huggingface_hub's cache (HF_HOME).

A repository's listing (commit, names, sizes and hashes) is recorded when the hub is first asked, in
``<repository>/tsv_bench/``. So we know without a network whether everything is here, and what is
fetched later belongs to the same commit.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import constants

from tsv_bench.files import replace_text
from tsv_bench.hub.listing import File, Listing, parse_record, record

CHUNK = 2**20  # bytes that are hashed at a time
SHA256_DIGITS = 64  # of a digest; git's sha1 has 40


def cache_folder() -> Path:
    """Return the folder where huggingface_hub keeps what it fetches; HF_HOME moves it."""
    return Path(constants.HF_HUB_CACHE)


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, and its place in the cache."""

    kind: str  # "dataset" or "model"
    name: str  # "owner/name"
    revision: str | None  # None: the main branch

    @property
    def home(self) -> Path:
        """Its folder in the cache, named as huggingface_hub names it."""
        return cache_folder() / "--".join([f"{self.kind}s", *self.name.split("/")])

    @property
    def reference(self) -> str:
        """The revision, or the name of the main branch."""
        return self.revision or constants.DEFAULT_REVISION

    @property
    def page(self) -> str:
        """The address of its page on the hub."""
        prefix = "datasets/" if self.kind == "dataset" else ""
        return f"{constants.ENDPOINT}/{prefix}{self.name}"

    @property
    def record(self) -> Path:
        """The file that records its listing."""
        return self.home / "tsv_bench" / f"{quote(self.reference, safe='')}.json"

    def snapshot(self, listing: Listing) -> Path:
        """Return the folder that has the files under their own names."""
        return self.home / "snapshots" / listing.commit

    def link(self, listing: Listing, file: File) -> Path:
        """Return the path that links to a file's content, its name in the folder of the commit.

        Raises OSError if its folder is elsewhere, since a link stands in the way.
        """
        path = self.snapshot(listing) / file.name
        real = os.path.join(os.path.realpath(self.home), path.parent.relative_to(self.home))
        if os.path.realpath(path.parent) != real:
            raise OSError(
                f"{path} is not to be written: a symbolic link in that path leads elsewhere. "
                f"Remove {self.snapshot(listing)} and fetch again."
            )
        return path

    def content(self, file: File) -> Path:
        """Return the path where huggingface_hub keeps a file's content."""
        return self.home / "blobs" / file.digest

    def partial(self, file: File) -> Path:
        """Return the path where an interrupted download leaves the beginning of the content."""
        return self.home / "blobs" / f"{file.digest}.part"

    def listing(self) -> Listing | None:
        """Return the recorded listing, or None if there is none that can be believed."""
        try:
            return parse_record(self.record.read_text())
        except (OSError, ValueError):
            return None

    def keep(self, listing: Listing) -> None:
        """Record the listing, and its commit as that of the revision."""
        replace_text(self.record, record(listing))
        # huggingface_hub prunes snapshots that no reference names.
        if listing.commit != self.revision:
            reference = self.home / "refs" / self.reference
            replace_text(reference, listing.commit)

    def keep_damaged(self, listing: Listing, names: Sequence[str]) -> None:
        """Record that these files, and no others, have wrong hashes."""
        if set(names) != set(listing.damaged):
            self.keep(replace(listing, damaged=tuple(names)))


def size(path: Path) -> int:
    """Return a file's size in bytes, or 0 if there is no file."""
    return path.stat().st_size if path.exists() else 0


def intact(path: Path, file: File) -> bool:
    """Return whether the content at ``path`` has the hash that the repository lists."""
    if len(file.digest) == SHA256_DIGITS:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(f"blob {size(path)}\0".encode(), usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == file.digest
