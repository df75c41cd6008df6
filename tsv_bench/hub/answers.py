"""What the hub answers: in bounded time and memory, with errors that say what to do.

``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and ``HF_HUB_DOWNLOAD_TIMEOUT`` work as for
huggingface_hub. Its own functions wait without end for an answer, and read whole what comes with a
redirect or an error.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers, get_session

from tsv_bench.hub.cache import Repository

OK, PART = 200, 206  # HTTP statuses
BUSY = (408, 429)  # after which the hub may be asked again
MAX_REDIRECTS = 20
NUM_CHUNKS = 2  # that are read of what comes with a redirect
MAX_LISTING = 64 * 2**20  # bytes; a file takes some 300
MAX_SECONDS = 300  # for a listing


class NoNetwork(OSError):
    """The error when the hub cannot be reached at all."""


class Refused(Exception):
    """The error when the hub answers with another status than OK or PART."""

    def __init__(self, url: str, response: httpx2.Response) -> None:
        super().__init__(f"{url}: {response.status_code}")
        self.url, self.status, self.headers = url, response.status_code, response.headers

    @property
    def code(self) -> str | None:
        """The hub's own word for what is wrong."""
        return self.headers.get("X-Error-Code")


@contextmanager
def answered(url: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx2.Response]:
    """Ask for ``url`` and give the answer after all redirects, its content not yet read.

    Raises Refused if it has another status than OK or PART, httpx2.TransportError if the hub cannot
    be reached or is silent for HF_HUB_DOWNLOAD_TIMEOUT.
    """
    session = get_session()
    request = session.build_request(
        "GET",
        url,
        # Not compressed: a part of a compressed answer cannot be asked for, and a bomb is none.
        headers={**build_hf_headers(), "Accept-Encoding": "identity", **(headers or {})},
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    )
    for _ in range(MAX_REDIRECTS + 1):
        response = session.send(request, stream=True, follow_redirects=False)
        try:
            if (request := response.next_request) is None:
                if response.status_code not in (OK, PART):
                    raise Refused(url, response)
                yield response
                return
            # What comes with a redirect may be endless. Read to its end, it frees the connection.
            for _ in islice(response.iter_raw(), NUM_CHUNKS):
                pass
        finally:
            response.close()
    raise httpx2.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects")


def read_listing(url: str) -> bytes:
    """Return the answer, which is to be a listing.

    Raises ValueError if it has more than MAX_LISTING bytes, httpx2.ReadTimeout if it takes more
    than MAX_SECONDS, and what `answered` raises.
    """
    answer, until = bytearray(), time.monotonic() + MAX_SECONDS
    with answered(url) as response:
        for chunk in response.iter_raw():
            answer += chunk
            if len(answer) > MAX_LISTING:
                raise ValueError(f"it has more than {MAX_LISTING} bytes")
            if time.monotonic() > until:
                raise httpx2.ReadTimeout(f"not whole after {MAX_SECONDS} s")
    return bytes(answer)


@contextmanager
def explained(repository: Repository, what: str) -> Iterator[None]:
    """Turn errors of the hub into OSError or NoNetwork that says what to do."""
    try:
        yield
    except Refused as error:
        raise OSError(refusal(error, repository, what)) from error
    except OfflineModeIsEnabled as error:
        raise NoNetwork(
            f"{what} is not here, and HF_HUB_OFFLINE=1 forbids to fetch it. Run tsv-fetch without "
            f"that setting, where there is a network."
        ) from error
    except httpx2.TransportError as error:
        raise NoNetwork(
            f"{what} is not here, and {constants.ENDPOINT} cannot be reached "
            f"({str(error) or type(error).__name__}). Run the same command again where there is a "
            f"network; what was fetched is kept."
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise OSError(
            f"{what}: {constants.ENDPOINT} answers what cannot be understood "
            f"({str(error) or type(error).__name__}). Is HF_ENDPOINT right?"
        ) from error


def refusal(error: Refused, repository: Repository, what: str) -> str:
    """Return a message for what the hub refuses."""
    if error.code == "GatedRepo":
        return (
            f"{what} is gated: its owner asks for an agreement first. Accept it at "
            f"{repository.page} , log in with `hf auth login`, and run the same command again."
        )
    if error.code == "RevisionNotFound":
        return f"{what} has no revision {repository.reference!r}; see {repository.page} ."
    if error.code == "EntryNotFound":
        return (
            f"{what} lists a file that it does not give, {error.url} . Run the same command again: "
            f"the hub is asked anew what there is."
        )
    if error.code == "RepoNotFound" or error.status in (401, 403):
        return (
            f"{what} is not at {repository.page} : there is no such {repository.kind}, or it "
            f"is private. Check the name, or log in with `hf auth login`."
        )
    return (
        f"{what}: {constants.ENDPOINT} answered {error.status}. Try again later; what was fetched "
        f"is kept."
    )
