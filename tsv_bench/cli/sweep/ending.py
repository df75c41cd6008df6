"""The end of a sweep: what its jobs made, and what failed."""

import shlex
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

UNFINISHED = "did not end. Its process may have been killed"


@dataclass
class Sweep:
    """A sweep that has begun."""

    command: Command
    config: DictConfig  # that Hydra sweeps from
    folder: Path  # of the records
    jobs: list[Job] | None  # None: a sweeper makes them up as it goes

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
    failed = [*(record for record in records if record.error is not None), *unfinished(sweep)]
    if failed:
        total = len(finished) + len(failed)
        print(f"{sweep.command.program}: {len(failed)} of {total} failed:", file=sys.stderr)
        for line in lines_of(sweep, failed, [r.overrides for r in (*records, *failed)]):
            print(line, file=sys.stderr)
        sys.exit(1)


def unfinished(sweep: Sweep) -> Iterator[Record]:
    """Yield a record for each job without one: of a process that was killed, or never began."""
    there = {record.number for record in read_records(sweep.folder)}
    for job in sweep.jobs or ():
        if job.number not in there:
            yield Record(
                number=job.number, overrides=list(job.overrides), files=[], error=UNFINISHED
            )


def lines_of(
    sweep: Sweep, failed: Sequence[Record], of_all: Sequence[Sequence[str]]
) -> Iterator[str]:
    """Yield what failed, by the overrides that vary, with its message and how to run it again."""
    for record in failed:
        message = record.error.replace("\n", "\n    ")
        yield f"  {varying(record.overrides, of_all)}: {message}"
        yield f"    again by: {again(sweep.command, record.overrides)}"


def again(command: Command, overrides: Sequence[str]) -> str:
    """Return the command line of one job alone."""
    kept = iter(command.arguments)
    flags = []
    for argument in kept:
        if argument in ("--config-dir", "-cd"):
            flags += [argument, next(kept, "")]
        elif argument.startswith(("--config-dir=", "-cd=", "hydra.searchpath=")):
            flags.append(argument)
    return shlex.join([command.program, *flags, *map(as_typed, overrides)])
