"""Listing a repository's files, downloading them, and linking them under their names."""

import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import httpx2
from huggingface_hub import constants, hf_hub_url

from tsv_bench.bars import Bar
from tsv_bench.files.atomic import sync
from tsv_bench.hub.answers import BUSY, OK, Refused, answered, explained, read_listing
from tsv_bench.hub.cache import Repository, intact, size
from tsv_bench.hub.listing import COMMIT, File, Listing, parse_answer

log = logging.getLogger(__name__)

TRIES = 6  # to get more of a file, counted from the last that brought some
WAIT = 1.0  # seconds between two tries
MAX_WAIT = 300  # seconds, where the hub asks for more
CHUNK = 10 * 2**20  # bytes that are written at a time, as by huggingface_hub


def list_files(repository: Repository, what: str, recorded: Listing | None = None) -> Listing:
    """Ask the hub for a repository's listing, at the commit of the ``recorded`` one if it has that.

    Raises OSError that names ``what`` if the hub does not give it, NoNetwork if it cannot be
    reached.
    """
    with explained(repository, what):
        try:
            if recorded:
                return list_revision(repository, what, recorded.commit)
        except Refused as error:
            if error.code != "RevisionNotFound":
                raise
        return list_revision(repository, what, repository.reference)


def list_revision(repository: Repository, what: str, revision: str) -> Listing:
    """Return a repository's listing at a commit or branch.

    Raises OSError if it cannot be believed, and what `answered` raises.
    """
    place = f"{constants.ENDPOINT}/api/{repository.kind}s/{quote(repository.name)}"
    try:
        listing = parse_answer(
            read_listing(f"{place}/revision/{quote(revision, safe='')}?blobs=true")
        )
        if COMMIT.fullmatch(revision) and listing.commit != revision:
            raise ValueError(f"it is of commit {listing.commit}, not of {revision}")
    except ValueError as error:
        raise OSError(
            f"{what}: the listing that {constants.ENDPOINT} gives cannot be believed: {error}. "
            f"Nothing was written. Is HF_ENDPOINT right? If so, run the same command again later."
        ) from error
    return listing


def download(repository: Repository, what: str, commit: str, file: File, bar: Bar) -> None:
    """Download a file's content and verify its hash; continue an interrupted download.

    huggingface_hub's own download starts anew in every process. ``bar`` counts bytes. Raises
    OSError that names ``what`` if the hub does not give the file or it arrives damaged, NoNetwork
    if the hub cannot be reached.
    """
    content, part = repository.content(file), repository.partial(file)
    if content.exists() and intact(content, file):
        return check_size(content, what, file)
    content.unlink(missing_ok=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    if part.is_symlink() or size(part) > file.size:
        part.unlink()
    url = hf_hub_url(
        repository.name,
        file.name,
        repo_type=repository.kind,
        revision=commit,
        endpoint=constants.ENDPOINT,
    )
    with explained(repository, what):
        append_rest(url, part, file.size, bar)
    check_size(part, what, file)
    if not intact(part, file):
        part.unlink()
        raise OSError(
            f"{file.name} of {what} came damaged: its hash is not {file.digest}, as the hub lists "
            f"it. Run the same command again; if it stays so, something on the way changes files."
        )
    sync(part)
    part.replace(content)
    sync(content.parent)


def check_size(path: Path, what: str, file: File) -> None:
    """Check that a content has the size that is listed. Raises OSError if it has another."""
    if size(path) != file.size:
        raise OSError(
            f"{file.name} of {what} has {size(path)} bytes here, {file.size} are listed, and no "
            f"more come. Run the same command again: the hub is asked anew what there is."
        )


def append_rest(url: str, part: Path, num_bytes: int, bar: Bar) -> None:
    """Append to ``part`` what it lacks of the ``num_bytes`` at ``url``; resume a cut connection.

    What comes beyond them is not read. Raises httpx2.TransportError after TRIES, Refused if the hub
    answers with an error; returns if it ends its answers too early.
    """
    failed, most = 0, size(part)
    with part.open("ab") as out:
        while (start := out.tell()) < num_bytes:
            wait, problem = WAIT, None
            try:
                with answered(url, {"Range": f"bytes={start}-"} if start else {}) as response:
                    if start and response.status_code == OK:  # the whole file, not the rest
                        out.seek(0)
                        out.truncate()
                        bar.update(-start)
                    for chunk in response.iter_raw(CHUNK):
                        if not (listed := chunk[: num_bytes - out.tell()]):
                            break
                        bar.update(out.write(listed))
            except httpx2.TransportError as error:
                problem = error
            except Refused as error:
                if error.status not in BUSY:
                    raise
                problem, wait = error, asked_wait(error.headers)
            if out.tell() == num_bytes:
                return
            # Sent from its beginning again and again, a file does not become longer.
            failed = 1 if out.tell() > most else failed + 1
            most = max(most, out.tell())
            if failed == TRIES:
                if problem:
                    raise problem
                return
            why = "no more came" if problem is None else str(problem) or type(problem).__name__
            log.warning(f"{url}: {why}; trying again")
            time.sleep(wait)


def asked_wait(headers: Mapping[str, str]) -> float:
    """Return how many seconds the hub asks to wait, MAX_WAIT at most; WAIT if it says nothing."""
    found = re.fullmatch(r"(\d+)", headers.get("Retry-After", "")) or re.search(
        r"\bt=(\d+)", headers.get("RateLimit", "")
    )
    return min(float(found[1]), MAX_WAIT) if found else WAIT


def link(repository: Repository, listing: Listing, file: File) -> None:
    """Link a downloaded content under its name in the folder of the commit.

    Raises OSError if the link would lie elsewhere.
    """
    path, content = repository.link(listing, file), repository.content(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(os.path.relpath(content, path.parent))
    except OSError:  # a disk without symbolic links
        shutil.copyfile(content, path)
