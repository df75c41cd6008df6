"""What a sweep knows of the command that it runs."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

Check = Callable[[DictConfig], Any]  # raises ValueError or OSError for a wrong setting


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command as it was typed, and its parts."""

    program: str
    arguments: Sequence[str]  # as Hydra got them
    check: Check  # without torch
    check_all: Check | None = None  # with torch, whatever machine the job will run on
    check_here: Check | None = None  # with torch, of a job that will run in this process
    writes: str | None = None  # the setting that names what a job writes
    places: Callable[[DictConfig], Sequence[Path]] | None = None  # that are written at the end
    plan: Callable[[Sequence[DictConfig], Sequence[str]], None] | None = None  # of plan=true
    conclude: Callable[[DictConfig, Sequence[Path]], None] | None = None  # shows what jobs made
    shared: Sequence[str] = ()  # settings of folders that all machines must see
    mark: str = ""  # name of the files by which they are told
    check_metric: Check | None = None  # whether jobs give a sweeper one to go by; None: they do not


# The one that this process was started as.
current: ContextVar[Command | None] = ContextVar("current", default=None)

# The command as its user has typed it, for model cards and logs; in its jobs elsewhere, too.
typed_command: ContextVar[str | None] = ContextVar("typed_command", default=None)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a job has made."""

    files: Sequence[Path] = ()
    metric: float | None = None  # that a sweeper maximizes
