"""Requests to the hub: listing a repository's files, and downloading them.

``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` work as for huggingface_hub.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff
from tqdm import tqdm

from tsv_bench.hub.cache import File, Listing, Repository, intact, size

log = logging.getLogger(__name__)

TRIES = 6  # to get more of a file, counted from the last that brought some
WAIT = 1.0  # seconds between two tries
CHUNK = 10 * 2**20  # bytes that are written at a time, as by huggingface_hub
OK, BUSY = 200, (408, 429)  # HTTP statuses; after BUSY the hub is asked again


class NoNetwork(OSError):
    """The error when the hub cannot be reached at all."""


def list_files(repository: Repository, what: str) -> Listing:
    """Ask the hub for a repository's listing.

    Raises OSError that names ``what`` if the hub does not give it, NoNetwork if it cannot be
    reached.
    """
    with explained(repository, what):
        info = HfApi(endpoint=constants.ENDPOINT).repo_info(
            repository.name,
            repo_type=repository.kind,
            revision=repository.revision,
            files_metadata=True,
        )
    licence = getattr(info.card_data, "license", None)
    return Listing(
        commit=info.sha,
        licence=", ".join(licence) if isinstance(licence, list) else licence,
        files=tuple(
            File(file.rfilename, file.size, file.lfs.sha256 if file.lfs else file.blob_id)
            for file in info.siblings
        ),
    )


def download(repository: Repository, what: str, commit: str, file: File, bar: tqdm) -> None:
    """Download a file's content and verify its hash; continue an interrupted download.

    huggingface_hub's own download starts anew in every process. ``bar`` counts bytes. Raises
    OSError that names ``what`` if the hub does not give the file or it arrives damaged, NoNetwork
    if the hub cannot be reached.
    """
    content, part = repository.content(file), repository.partial(file)
    if content.exists() and size(content) == file.size and intact(content, file):
        return
    content.unlink(missing_ok=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    if size(part) > file.size:
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
    if not intact(part, file):
        part.unlink()
        raise OSError(
            f"{file.name} of {what} came damaged: its hash is not {file.digest}, as the hub lists "
            f"it. Run the same command again; if it stays so, something on the way changes files."
        )
    part.replace(content)


def append_rest(url: str, part: Path, num_bytes: int, bar: tqdm) -> None:
    """Append to ``part`` what it lacks of the ``num_bytes`` at ``url``; resume a cut connection.

    Raises httpx2.TransportError after TRIES.
    """
    # Not compressed: a part of a compressed answer cannot be asked for.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    failed = 0
    with part.open("ab") as out:
        while (start := out.tell()) < num_bytes:
            rest = {"Range": f"bytes={start}-"} if start else {}
            try:
                with http_stream_backoff(
                    "GET",
                    url,
                    headers=headers | rest,
                    timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
                    retry_on_exceptions=(),
                    retry_on_status_codes=BUSY,
                ) as response:
                    hf_raise_for_status(response)
                    if start and response.status_code == OK:  # the whole file, not the rest
                        out.seek(0)
                        out.truncate()
                        bar.update(-start)
                    for chunk in response.iter_bytes(CHUNK):
                        out.write(chunk)
                        bar.update(len(chunk))
                        failed = 0
                return
            except httpx2.TransportError as error:
                failed += 1
                if failed == TRIES:
                    raise
                log.warning(f"{url}: {str(error) or type(error).__name__}; trying again")
                time.sleep(WAIT)


def link(repository: Repository, what: str, commit: str, patterns: Sequence[str]) -> None:
    """Link the downloaded contents under their names in the folder of the commit.

    Raises OSError that names ``what`` if the hub refuses.
    """
    with explained(repository, what):
        snapshot_download(
            repository.name,
            repo_type=repository.kind,
            revision=commit,
            allow_patterns=list(patterns) or None,
            cache_dir=constants.HF_HUB_CACHE,
            endpoint=constants.ENDPOINT,
            tqdm_class=Silent,
        )


@contextmanager
def explained(repository: Repository, what: str) -> Iterator[None]:
    """Turn errors of the hub into OSError or NoNetwork that says what to do."""
    try:
        yield
    except GatedRepoError as error:
        raise OSError(
            f"{what} is gated: its owner asks for an agreement first. Accept it at "
            f"{repository.page} , log in with `hf auth login`, and run the same command again."
        ) from error
    except RevisionNotFoundError as error:
        raise OSError(
            f"{what} has no revision {repository.reference!r}; see {repository.page} ."
        ) from error
    except RemoteEntryNotFoundError as error:
        raise OSError(
            f"{what} lists a file that it does not give, {error.response.url} . Was it changed? To "
            f"ask the hub anew, delete {repository.record}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise NoNetwork(
            f"{what} is not here, and HF_HUB_OFFLINE=1 forbids to fetch it. Run tsv-fetch without "
            f"that setting, where there is a network."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
            raise OSError(
                f"{what} is not at {repository.page} : there is no such {repository.kind}, or it "
                f"is private. Check the name, or log in with `hf auth login`."
            ) from error
        raise OSError(
            f"{what}: {constants.ENDPOINT} answered {status} {error.response.reason_phrase}. Try "
            f"again later; what was fetched is kept."
        ) from error
    except httpx2.TransportError as error:
        raise NoNetwork(
            f"{what} is not here, and {constants.ENDPOINT} cannot be reached "
            f"({str(error) or type(error).__name__}). Run the same command again where there is a "
            f"network; what was fetched is kept."
        ) from error


class Silent(tqdm):
    """A bar that is not shown."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **{**keywords, "disable": True})
