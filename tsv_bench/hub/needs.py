"""What a run needs from the hub: its state on this machine, and fetching it."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tsv_bench import bars
from tsv_bench.files import leased
from tsv_bench.hub.cache import Repository, intact, size
from tsv_bench.hub.download import download, link, list_files
from tsv_bench.hub.listing import File
from tsv_bench.wording import suggested

KINDS = ("dataset", "model")
NUM_SHOWN = 8  # files in a message


@dataclass(frozen=True, kw_only=True)
class Need:
    """Files of one repository that a run needs."""

    what: str  # "data of cars", "weights of vit_b32", "checkpoint of cars"
    repo: str
    kind: str  # "dataset" or "model"
    patterns: tuple[str, ...] = ()  # of names of files; (): all files
    revision: str | None = None
    num_bytes: int | None = None  # about; None: not known
    licence: str | None = None  # None: as the hub says

    def __post_init__(self) -> None:
        object.__setattr__(self, "patterns", tuple(self.patterns))
        if self.kind not in KINDS:
            raise ValueError(
                f"{self.what} is of kind {self.kind!r}; there are: {', '.join(KINDS)}."
            )

    def __str__(self) -> str:
        return f"{self.what} ({self.repo})"

    @property
    def repository(self) -> Repository:
        """The repository with its place in the cache."""
        return Repository(self.kind, self.repo, self.revision)


@dataclass(frozen=True, kw_only=True)
class State:
    """How much of a need is on this machine."""

    need: Need
    folder: Path | None = None  # None: the hub was never asked what there is
    licence: str | None = None
    files: tuple[File, ...] = ()  # all that are needed
    missing: tuple[File, ...] = ()
    damaged: tuple[File, ...] = ()  # with another size or hash than listed

    @property
    def here(self) -> bool:
        """Whether all needed files are here and none is known to be damaged."""
        return bool(self.files) and not self.missing and not self.damaged

    @property
    def num_bytes(self) -> int | None:
        """The size of all files in bytes, or None if neither the hub nor the need says it."""
        return sum(file.size for file in self.files) if self.files else self.need.num_bytes

    @property
    def missing_bytes(self) -> int:
        """The bytes still to be fetched, without what an interrupted download left."""
        if not self.files:
            return self.need.num_bytes or 0
        repository, total, damaged = self.need.repository, 0, set(self.damaged)
        for file in {file.digest: file for file in (*self.missing, *self.damaged)}.values():
            brought = size(repository.partial(file))
            if file not in damaged and size(repository.content(file)) == file.size:
                brought = file.size  # only the link to it is missing
            total += file.size - min(brought, file.size)
        return total

    def __str__(self) -> str:
        """The state in a few words, for tables and messages."""
        if self.here:
            return "here"
        if self.damaged:
            return f"damaged: {self.damaged[0].name}"
        if self.files and self.missing_bytes < self.num_bytes:
            return f"{amount(self.missing_bytes)} missing"
        return "missing"


def local_folder(need: Need) -> Path | None:
    """Return the folder with the repository's files, or None unless all needed ones are here."""
    found = state(need)
    return found.folder if found.here else None


def require(need: Need) -> Path:
    """Return the folder with the repository's files.

    Raises OSError that says how to fetch them unless all needed ones are here.
    """
    found = state(need)
    if not found.here:
        raise OSError(
            f"{need} is not here ({found}). Fetch it, with suite=, backbone= and checkpoints= as "
            f"here: {suggested.command('tsv-fetch')}"
        )
    return found.folder


def state(need: Need, *, check: bool = False) -> State:
    """Return what is here and what is missing, without a network.

    Sizes are always compared, hashes only with ``check``, which reads every file. A file that is
    found damaged is recorded as such until it is fetched again.
    """
    repository = need.repository
    listing = repository.listing()
    if listing is None:
        return State(need=need, licence=need.licence)
    folder = repository.snapshot(listing)
    files = listing.matching(need.patterns)
    known = set() if check else set(listing.damaged)
    missing, damaged, whole = [], [], []
    for file in files:
        if not (folder / file.name).exists():
            missing.append(file)
        elif size(folder / file.name) != file.size or file.name in known:
            damaged.append(file)
        else:
            whole.append(file)
    if check:
        bad = [file for file in reading(need.what, whole) if not intact(folder / file.name, file)]
        checked = {file.name for file in whole}
        kept = [name for name in listing.damaged if name not in checked]
        with suppress(OSError):  # in a cache for reading only it is found again each time
            repository.keep_damaged(listing, [*kept, *(file.name for file in bad)])
        damaged += bad
    return State(
        need=need,
        folder=folder,
        licence=need.licence or listing.licence,
        files=files,
        missing=tuple(missing),
        damaged=tuple(damaged),
    )


def look_up(need: Need) -> State:
    """Return the `state`, and ask the hub first what there is unless all that is needed is here.

    An honest hub lists the same files again for the commit that is recorded, so a false record does
    not stay. Raises OSError if the hub has no such repository or files, NoNetwork if it cannot be
    reached.
    """
    found = state(need)
    if found.here:
        return found
    repository = need.repository
    recorded = repository.listing()
    listing = list_files(repository, str(need), recorded)
    if not listing.matching(need.patterns):
        names = ", ".join(file.name for file in listing.files[:NUM_SHOWN]) or "no file at all"
        raise OSError(
            f"{need} has no file that matches {', '.join(need.patterns) or '*'} at commit "
            f"{listing.commit[:12]}; it has: {names}. Is another repository or revision meant? To "
            f"ask the hub anew, delete {repository.record}"
        )
    if recorded and recorded.commit == listing.commit:
        listing = replace(listing, damaged=recorded.damaged)
    if listing != recorded:
        repository.keep(listing)
    return state(need)


def fetch(need: Need, *, progress: bool = True) -> Path:
    """Download and verify what is missing, and return the folder with the repository's files.

    An interrupted download is continued. Raises OSError that says what to do if the files cannot be
    fetched, NoNetwork if the hub cannot be reached.
    """
    if folder := local_folder(need):
        return folder
    repository = need.repository
    with leased(repository.home / "tsv_bench"):  # a second process waits for the first
        found = look_up(need)
        listing, lacking = repository.listing(), [*found.missing, *found.damaged]
        with bars.bar(
            total=found.num_bytes,
            initial=found.num_bytes - found.missing_bytes,
            desc=need.what,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=not progress,
        ) as bar:
            for file in lacking:
                repository.link(listing, file).unlink(missing_ok=True)
            for file in {file.digest: file for file in lacking}.values():
                download(repository, str(need), listing.commit, file, bar)
        if lacking:
            for file in lacking:
                link(repository, listing, file)
            names = {file.name for file in lacking}
            repository.keep_damaged(listing, [n for n in listing.damaged if n not in names])
    return require(need)


def reading(what: str, files: Sequence[File]) -> Iterator[File]:
    """Yield the files one by one, with a progress bar that counts their bytes."""
    total = sum(file.size for file in files)
    with bars.bar(
        total=total, desc=f"checking {what}", unit="B", unit_scale=True, leave=False
    ) as bar:
        for file in files:
            yield file
            bar.update(file.size)


def amount(num_bytes: int | None) -> str:
    """Return a size as people write it, "1.5 GB"; "?" if it is not known."""
    if num_bytes is None:
        return "?"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.{1 if num_bytes < 10 * unit else 0}f} {name}"
    return f"{num_bytes} bytes"
