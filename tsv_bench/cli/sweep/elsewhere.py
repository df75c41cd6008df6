"""A job in another process, or on another machine, than the command that was started."""

import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tsv_bench
from tsv_bench.cli.sweep.records import JOBS
from tsv_bench.process.signals import ended_by_signals, signal_of

SUBMITIT = "hydra_plugins.hydra_submitit_launcher."


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where a command was started; its jobs carry it along."""

    host: str
    process: int
    folder: str  # the current one
    modules: tuple[str, ...]  # sys.path: a method of a user's own may lie there
    version: str

    @classmethod
    def here(cls) -> "Home":
        """Return this process."""
        return cls(
            host=socket.gethostname(),
            process=os.getpid(),
            folder=os.getcwd(),
            modules=tuple(sys.path),
            version=tsv_bench.__version__,
        )

    @property
    def is_here(self) -> bool:
        """Whether this is the process."""
        return (self.host, self.process) == (socket.gethostname(), os.getpid())


@contextmanager
def at_home(home: Home, sweep: str, launcher: str) -> Iterator[None]:
    """Let a job find what the command has found: the current folder, and modules.

    ``sweep``: the folder of its records. ``launcher``: the class that has brought the job here. A
    signal that asks it to end does so; where it has the process for itself, with the signal's exit
    code. Raises ValueError if this machine lacks the folder, or has another version.
    """
    here = socket.gethostname()
    if home.version != tsv_bench.__version__:
        raise ValueError(
            f"{here} has tsv_bench {tsv_bench.__version__}, and the sweep was started on "
            f"{home.host} by {home.version}. Install the same on both."
        )
    for folder, file in ((home.folder, ""), (sweep, JOBS)):
        path = Path(home.folder) / folder / file
        if not path.exists():
            raise ValueError(
                f"{here} does not see {path} of {home.host}. The folder where a sweep is started, "
                f"and hydra.sweep.dir, have to be on a file system that all machines share."
            )
    os.chdir(home.folder)
    sys.path += [folder for folder in home.modules if folder not in sys.path]
    with ended_by_signals():
        try:
            yield
        except KeyboardInterrupt as stop:
            if launcher.startswith(SUBMITIT):
                sys.exit(128 + signal_of(stop))  # as shells have it
            raise


def is_queued_again(error: BaseException) -> bool:
    """Return whether it is submitit that ends this process, because the job will begin again."""
    if not isinstance(error, SystemExit):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").startswith("submitit.")
