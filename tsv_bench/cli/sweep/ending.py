"""The end of a sweep: what its jobs made, and what failed."""

import shlex
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Optional

from omegaconf import DictConfig

from tsv_bench.cli.sweep.command import Command, current
from tsv_bench.cli.sweep.jobs import Job
from tsv_bench.cli.sweep.records import Record, as_typed, read_records, varying
from tsv_bench.cli.typed.mistakes import or_exit

NUMBER = "${hydra:job.num}"  # that a user may have named a file by
UNFINISHED = "did not end. Its process may have been killed, or be still at work elsewhere"


@dataclass
class Sweep:
    """A sweep that has begun."""

    command: Command
    config: DictConfig  # that Hydra sweeps from
    folder: Path  # of the records
    jobs: list[Job] | None  # None: a sweeper makes them up as it goes
    marks: Sequence[Path] = ()  # that jobs elsewhere look for

    begun: ClassVar[Optional["Sweep"]] = None  # the one that this process is in


def end() -> None:
    """End the sweep that this process has begun, if any: show what jobs made and list failures.

    Ends the process with exit code 1 if a job failed.
    """
    sweep, Sweep.begun = Sweep.begun, None
    if sweep is not None and sweep.command is current.get():  # not one that was interrupted
        or_exit(sweep.command.program, lambda: conclude(sweep))


def conclude(sweep: Sweep) -> None:
    """Show what jobs made, list those that failed, and end the process if any did."""
    records = read_records(sweep.folder)
    finished = [record for record in records if record.error is None]
    if sweep.command.conclude and (files := [Path(f) for r in finished for f in r.files]):
        sweep.command.conclude(sweep.config, files)
    missing = [*unfinished(sweep, records)]
    ended = [*records, *missing]
    for mark in () if missing else sweep.marks:  # a job that is still queued looks for them
        mark.unlink(missing_ok=True)
    failed = [record for record in ended if record.error is not None]
    if failed:
        print(f"{sweep.command.program}: {len(failed)} of {len(ended)} failed:", file=sys.stderr)
        for line in lines_of(sweep, failed, [record.overrides for record in ended]):
            print(line, file=sys.stderr)
        sys.exit(1)


def unfinished(sweep: Sweep, records: Sequence[Record]) -> Iterator[Record]:
    """Yield a record for each job without one: of a process that was killed, or never began."""
    there = {record.number for record in records}
    for job in sweep.jobs or ():
        if job.number not in there:
            yield Record(
                number=job.number, overrides=list(job.overrides), files=[], error=UNFINISHED
            )


def lines_of(
    sweep: Sweep, failed: Sequence[Record], of_all: Sequence[Sequence[str]]
) -> Iterator[str]:
    """Yield what failed, by the overrides that vary, with its message and how to run it again.

    The machine is named where it is another one.
    """
    for record in failed:
        message = record.error.replace("\n", "\n    ")
        where = f" on {record.host}" if record.host not in ("", socket.gethostname()) else ""
        yield f"  {varying(record.overrides, of_all)}{where}: {message}"
        yield f"    again by: {again(sweep.command, record)}"


def again(command: Command, record: Record) -> str:
    """Return the command line of one job alone."""
    kept = iter(command.arguments)
    flags = []
    for argument in kept:
        if argument in ("--config-dir", "-cd"):
            flags += [argument, next(kept, "")]
        elif argument.startswith(("--config-dir=", "-cd=", "hydra.searchpath=")):
            flags.append(argument)
    # What is not a job of a sweep has no number.
    typed = [as_typed(o).replace(NUMBER, str(record.number)) for o in record.overrides]
    return shlex.join([command.program, *flags, *typed])
