"""Records of a sweep on disk: its jobs in jobs.yaml, and how each ended in a yaml of its own.

A job may run in another process or on another machine than the command that was started. The
folder of the sweep, hydra.sweep.dir, is where they find each other.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from tsv_bench.files import replace_text

JOBS = "jobs.yaml"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a job ended."""

    number: int
    overrides: list[str]
    files: list[str]  # that it made or found; [] if it failed
    error: str | None = None  # why it failed; None: it did not
    metric: float | None = None
    host: str = ""
    seconds: float = 0.0


def write_jobs(folder: Path, jobs: Sequence[Sequence[str]]) -> None:
    """Write the overrides of all jobs, before the first starts.

    Records of an earlier sweep in the folder are removed: they tell of other jobs.
    """
    for path, _ in _records(folder):
        path.unlink(missing_ok=True)
    replace_text(folder / JOBS, yaml.safe_dump([list(overrides) for overrides in jobs]))


def read_jobs(folder: Path) -> list[list[str]]:
    """Read the overrides of all jobs; [] if the sweeper makes them up as it goes."""
    path = Path(folder) / JOBS
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else []


def varying(overrides: Sequence[str], of_all: Sequence[Sequence[str]]) -> str:
    """Return those of a job's overrides that not all jobs have, as a user types them."""
    common = set(of_all[0]).intersection(*of_all[1:]) if len(of_all) > 1 else set()
    return " ".join(map(as_typed, [o for o in overrides if o not in common] or overrides))


def as_typed(override: str) -> str:
    """Return an override of Hydra's as a user types it."""
    return override.replace("task@suite.tasks=", "suite.tasks=", 1)


def write_record(folder: Path, record: Record) -> None:
    """Write a job's record; one of an earlier attempt is replaced."""
    content = {**asdict(record)}
    replace_text(folder / f"{record.number}.yaml", yaml.safe_dump(content, sort_keys=False))


def write_lost(folder: Path, number: int, why: str) -> None:
    """Write the record of a job that a launcher has lost, unless it has left one itself.

    Nor if its overrides are not known, because the sweeper makes jobs up as it goes.
    """
    jobs = read_jobs(folder)
    if number < len(jobs) and not (folder / f"{number}.yaml").exists():
        write_record(folder, Record(number=number, overrides=jobs[number], files=[], error=why))


def read_records(folder: Path) -> list[Record]:
    """Read the records of all jobs that have ended, in the order of their numbers.

    A file that is damaged is skipped with a warning.
    """
    return sorted((record for _, record in _records(folder)), key=lambda record: record.number)


def _records(folder: Path) -> list[tuple[Path, Record]]:
    found = []
    for path in Path(folder).glob("[0-9]*.yaml"):
        try:
            found.append((path, _record(yaml.safe_load(path.read_text(encoding="utf-8")))))
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            log.warning("skipped: %s is no record of a job: %s", path, error)
    return found


def _record(content: Mapping[str, Any]) -> Record:
    record = Record(**content)
    if not isinstance(record.number, int) or not isinstance(record.overrides, list):
        raise ValueError("its number is none, or its overrides are no list.")
    return record
