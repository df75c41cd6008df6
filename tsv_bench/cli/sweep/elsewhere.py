"""A job in another process, or on another machine, than the command that was started."""

import logging
import os
import secrets
import shlex
import socket
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import tsv_bench
from tsv_bench.cli.sweep.command import typed_command
from tsv_bench.files import replace_text
from tsv_bench.process.signals import ended_by_signals, signal_of

SUBMITIT = "hydra_plugins.hydra_submitit_launcher."
RAY = "hydra_plugins.hydra_ray_launcher."
APPEARS = 5.0  # seconds in which a file of another machine appears; NFS remembers what was there
NO_CHECKOUT = "no git checkout"  # in what `provenance.commit` says of an installed package

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where a command was started; its jobs carry it along."""

    host: str
    process: int
    folder: str  # the current one
    modules: tuple[str, ...]  # sys.path: a method of a user's own may lie there
    version: str
    mark: str  # name of the files by which a folder is known to be shared
    program: str
    arguments: tuple[str, ...]  # as typed

    @classmethod
    def here(cls, program: str, arguments: Sequence[str]) -> "Home":
        """Return this process, which was started as this command line."""
        return cls(
            host=socket.gethostname(),
            process=os.getpid(),
            folder=os.getcwd(),
            modules=tuple(sys.path),
            version=tsv_bench.__version__,
            mark=f".sweep-{secrets.token_hex(6)}",
            program=program,
            arguments=tuple(arguments),
        )

    @property
    def typed(self) -> str:
        """The command line, to be pasted into a shell."""
        return shlex.join([self.program, *self.arguments])

    @property
    def is_here(self) -> bool:
        """Whether this is the process."""
        return (self.host, self.process) == (socket.gethostname(), os.getpid())


@contextmanager
def at_home(home: Home, sweep: str, launcher: str) -> Iterator[None]:
    """Let a job find what the command has found: the current folder, modules, the command line.

    ``sweep``: the folder of its records. ``launcher``: the class that has brought the job here. A
    signal that asks it to end does so; where it has the process for itself, with the signal's exit
    code. Ray begins it again then, as after a kill. Raises ValueError if this machine lacks a
    folder: then there is no place for a record.
    """
    check_seen(Path(home.folder), home, "The folder where a sweep is started")
    check_seen(Path(home.folder) / sweep / home.mark, home, "hydra.sweep.dir")
    os.chdir(home.folder)
    sys.path += [folder for folder in home.modules if folder not in sys.path]
    token = typed_command.set(home.typed)
    with ended_by_signals():
        try:
            yield
        except KeyboardInterrupt as stop:
            if launcher.startswith(SUBMITIT):
                sys.exit(128 + signal_of(stop))  # as shells have it
            if launcher.startswith(RAY):
                os._exit(128 + signal_of(stop))  # Ray takes SystemExit for a result
            raise
        finally:
            typed_command.reset(token)


def check_alike(home: Home, shared: Mapping[str, str]) -> None:
    """Check that this machine has the code of the command, and its folders, by setting.

    Raises ValueError that names both machines.
    """
    here = socket.gethostname()
    if home.version != tsv_bench.__version__:
        raise ValueError(
            f"{here} has tsv_bench {tsv_bench.__version__}, and the sweep was started on "
            f"{home.host} by {home.version}. Install the same on both."
        )
    for setting, folder in shared.items():
        path = Path(home.folder) / Path(folder).expanduser() / home.mark
        check_seen(path, home, f"{setting}={folder}")
        check_commit(path.read_text(encoding="utf-8").strip(), home.host)


def check_seen(path: Path, home: Home, what: str) -> None:
    """Raise ValueError unless this machine sees what the command has made, or does so soon."""
    end = time.monotonic() + APPEARS
    while not path.exists():
        if time.monotonic() >= end:
            raise ValueError(
                f"{socket.gethostname()} does not see {path} of {home.host}. {what} has to be on a "
                f"file system that all machines share."
            )
        time.sleep(0.2)
        with suppress(OSError):
            os.listdir(path.parent)  # NFS looks again


def check_commit(theirs: str, host: str) -> None:
    """Check the commit that a sweep was started by. Raises ValueError if this machine has another.

    Where one of the two is not known, or has changed files, a warning says so.
    """
    from tsv_bench import provenance  # here: it imports torch

    own, here = provenance.commit(), socket.gethostname()
    if own == theirs:
        return
    said = f"{here} has tsv_bench at {own}, and the sweep was started on {host} by {theirs}."
    clean = [commit.removesuffix("-dirty") for commit in (own, theirs)]
    if clean[0] != clean[1] and not any(NO_CHECKOUT in commit for commit in clean):
        raise ValueError(f"{said} Check out the same on both.")
    log.warning(f"{said} Numbers are those of one program only if the code is the same.")


def set_marks(mark: str, folders: Iterable[Path]) -> list[Path]:
    """Write into each folder the file that jobs elsewhere look for; return the files.

    It holds the commit. Raises OSError if a folder cannot be written to.
    """
    from tsv_bench import provenance  # here: it imports torch

    marks = [folder / mark for folder in dict.fromkeys(folders)]
    for path in marks:
        replace_text(path, provenance.commit())
    return marks


def is_queued_again(error: BaseException) -> bool:
    """Return whether it is submitit that ends this process, because the job will begin again."""
    if not isinstance(error, SystemExit):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").startswith("submitit.")
