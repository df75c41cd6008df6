"""The beginning and the end of a sweep, in the process that was started."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncherConf
from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from tsv_bench.cli.launch import expand_home
from tsv_bench.cli.launchers.ray_jobs import survive
from tsv_bench.cli.sweep.asked import check_goes_by
from tsv_bench.cli.sweep.command import Command, current
from tsv_bench.cli.sweep.elsewhere import RAY, set_marks
from tsv_bench.cli.sweep.ending import Sweep, end
from tsv_bench.cli.sweep.jobs import (
    Job,
    at_work_on,
    check_apart,
    check_jobs,
    jobs_of,
    keep_composed,
)
from tsv_bench.cli.sweep.records import write_jobs, write_lost
from tsv_bench.cli.typed.mistakes import or_exit
from tsv_bench.cli.typed.quoting import quote
from tsv_bench.files import check_room

ROOM = 10_000_000  # bytes, for what the end of a sweep writes
SETTINGS = "paths.runs=, paths.report=, paths.checkpoints= or hydra.sweep.dir="


class SweepCallback(Callback):
    """Hydra's callback of conf/launch.yaml."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if command := current.get():
            or_exit(command.program, lambda: begin(command, config))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        end()


def begin(command: Command, config: DictConfig) -> None:
    """Check all jobs, and the places that are written at the end.

    Raises ValueError or OSError before anything is written.
    """
    if "paths" in config:
        expand_home(config.paths)
    jobs = jobs_of(config)
    if command.plan and config.get("plan") is True:
        show_plan(command, config, jobs)
        sys.exit(0)  # nothing is run
    here = config.hydra.launcher._target_ == BasicLauncherConf._target_
    if jobs is None:
        check_goes_by(command, config)
    found = None if jobs is None else check(command, config, jobs, here)
    folder = pinned(config)
    if jobs is not None and here:
        keep_composed(jobs, found, config)
    for place in (folder, *(command.places(config) if command.places else ())):
        check_room(place, ROOM, SETTINGS)
    write_jobs(folder, [job.overrides for job in jobs or ()])
    marks = [] if here else set_marks(command.mark, [folder, *shared(command, found or [config])])
    Sweep.begun = Sweep(command, config, folder, jobs, marks)
    if config.hydra.launcher._target_.startswith(RAY):
        survive(
            command.program,
            lambda number, why: write_lost(folder, number, why),
            by_results=config.hydra.sweeper._target_ != BasicSweeperConf._target_,
            wanted=config.hydra.launcher.ray.remote,
        )


def shared(command: Command, configs: Sequence[DictConfig]) -> Iterator[Path]:
    """Yield the folders that these jobs must see, wherever they run."""
    for config in configs:
        with at_work_on(config) as settings:
            for key in command.shared:
                yield Path(OmegaConf.select(settings, key)).expanduser()
        OmegaConf.set_readonly(config.hydra, None)  # as it was before: Hydra sweeps from it


def show_plan(command: Command, config: DictConfig, jobs: list[Job] | None) -> None:
    """Print what the jobs take. Raises ValueError if one cannot be, or if jobs are not known."""
    if jobs is None:
        raise ValueError(
            "plan=true does not know the cells of a sweeper that goes by results: it chooses them "
            "one after another."
        )
    settings: list[DictConfig] = []
    checks = [command.check, *filter(None, [command.check_all]), settings.append]
    composed = check_jobs(jobs, config, checks)
    with at_work_on(composed[0]):  # a cell asks whether something goes by validation
        command.plan(settings, [job.swept for job in jobs])


def pinned(config: DictConfig) -> Path:
    """Return the folder of the sweep, which all jobs are told: one may have other paths."""
    folder = Path(config.hydra.sweep.dir).expanduser()
    with read_write(config.hydra):
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote(str(folder.absolute()))}")
    return folder


def check(command: Command, config: DictConfig, jobs: list[Job], here: bool) -> list[DictConfig]:
    """Check the settings of all jobs, first what needs no torch; return their configurations.

    ``here``: whether they run in this process. Raises ValueError that names the jobs which cannot
    run.
    """
    more = (command.check_all, command.check_here if here else None)
    composed = check_jobs(jobs, config, [command.check, *filter(None, more)])
    if command.writes:
        check_apart(command.writes, jobs, composed)
    return composed
