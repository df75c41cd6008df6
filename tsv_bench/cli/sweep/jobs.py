"""The jobs of a sweep, composed and checked before the first starts."""

import copy
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict

from tsv_bench.cli.config.search_path import groups
from tsv_bench.cli.sweep.asked import goes_by_results
from tsv_bench.cli.sweep.records import varying
from tsv_bench.cli.typed.mistakes import message_of
from tsv_bench.cli.typed.reworded import reworded
from tsv_bench.cli.typed.sweeps import check_enumerable

MOST_NAMED = 3  # of jobs with the same mistake


@dataclass(frozen=True)
class Job:
    """One job of a sweep, as its overrides say."""

    number: int
    overrides: Sequence[str]
    swept: str  # those of them that other jobs have with other values


def jobs_of(config: DictConfig) -> list[Job] | None:
    """Return the jobs of a sweep in their order, given the configuration that Hydra sweeps from.

    None where another sweeper than Hydra's own goes by results. Raises ValueError for an interval.
    """
    if goes_by_results(config.hydra):
        return None
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides([*params, *task_overrides(config.hydra)])
    for override in parsed:
        check_enumerable(override)
        key, names = override.key_or_group, override._value
        if isinstance(names, list) and key in groups() and key != "task":
            several = ",".join(str(getattr(name, "text", name)) for name in names)
            raise ValueError(
                f"{override.input_line} chooses several at once. Each in a job of its own is "
                f"{key}={several}, and {key}: {several} in an experiment's params."
            )
    [lines] = BasicSweeper.split_arguments(parsed, None)
    return [Job(number, line, varying(line, lines)) for number, line in enumerate(lines)]


def task_overrides(hydra: DictConfig) -> list[str]:
    """Return the overrides as they were typed: ${method.name} is another name in each job."""
    return OmegaConf.to_container(hydra.overrides.task, resolve=False)


def composed(job: Job, config: DictConfig) -> DictConfig:
    """Return the configuration of a job. Raises ValueError that says why it has none."""
    loader = GlobalHydra.instance().config_loader()
    try:
        made = loader.load_sweep_config(config, list(job.overrides))
    except HydraException as error:
        raise ValueError(reworded(str(error))) from error
    with open_dict(made):
        made.hydra.job.id = made.hydra.job.num = job.number
    return made


@contextmanager
def reading_once() -> Iterator[None]:
    """Let Hydra read each file once for all that it composes in the block.

    With a suite of twenty tasks that is two fifths of the time that composing takes.
    """
    read, kept = ConfigRepository.load_config, {}

    def load_config(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        key = (*((source.provider, source.path) for source in self.sources), config_path)
        if key not in kept:
            kept[key] = pickle.dumps(read(self, config_path))
        return pickle.loads(kept[key])  # a copy: what is composed is merged into it

    ConfigRepository.load_config = load_config
    try:
        yield
    finally:
        ConfigRepository.load_config = read


@contextmanager
def at_work_on(config: DictConfig, settings: DictConfig | None = None) -> Iterator[DictConfig]:
    """Give the settings of a job as the job will have them, with Hydra's at their usual place.

    ``settings``: a copy of them that was given before; to make one takes a tenth of a second.
    """
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    if settings is None:
        settings = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        yield settings
    finally:
        HydraConfig.instance().cfg = before


def check_jobs(
    jobs: Sequence[Job], config: DictConfig, checks: Sequence[Callable[[DictConfig], Any]]
) -> list[DictConfig]:
    """Check the settings of every job, by one check after the other; return the configurations.

    Raises ValueError that names the jobs which do not pass the first check that not all pass.
    """
    configs: list[DictConfig] = []
    copies: dict[int, DictConfig] = {}
    with reading_once():
        _each(jobs, lambda job: configs.append(composed(job, config)))
    for check in checks:

        def run(job: Job, check: Callable[[DictConfig], Any] = check) -> None:
            with at_work_on(configs[job.number], copies.get(job.number)) as settings:
                copies[job.number] = settings
                check(settings)

        _each(jobs, run)
    return configs


def keep_composed(jobs: Sequence[Job], configs: Sequence[DictConfig], config: DictConfig) -> None:
    """Let Hydra take the jobs' configurations as they are, in place of composing each twice more.

    That takes a tenth of a second a time. ``config``: what Hydra sweeps from.
    """
    loader = GlobalHydra.instance().config_loader()
    compose = loader.load_sweep_config
    kept = {tuple(job.overrides): made for job, made in zip(jobs, configs, strict=True)}
    for made in kept.values():
        OmegaConf.set_readonly(made.hydra, None)  # as it was before `at_work_on`
        made.hydra.sweep.dir = config.hydra.sweep.dir  # may have been settled meanwhile
        made.hydra.overrides.hydra = config.hydra.overrides.hydra

    def load_sweep_config(master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        made = kept.get(tuple(sweep_overrides)) if master_config is config else None
        return compose(master_config, sweep_overrides) if made is None else copy.deepcopy(made)

    loader.load_sweep_config = load_sweep_config


def check_apart(key: str, jobs: Sequence[Job], configs: Sequence[DictConfig]) -> None:
    """Check that each job writes to a place of its own. Raises ValueError if two write to one."""
    same: dict[str, list[Job]] = {}
    for job, config in zip(jobs, configs, strict=True):
        with at_work_on(config) as settings:
            same.setdefault(str(settings[key]), []).append(job)
    place, having = max(same.items(), key=lambda item: len(item[1]))
    if len(having) > 1:
        varied = "method.name" if "method" in configs[0] else "hydra:runtime.choices.task"
        raise ValueError(
            f"{len(having)} of {len(jobs)} write {key}={place}, so none was started: "
            f"{named(having)}. Give each a place of its own, as in {key}='out-${{{varied}}}' or "
            f"{key}='out-${{hydra:job.num}}'."
        )


def _each(jobs: Sequence[Job], run: Callable[[Job], Any]) -> None:
    """Do it with every job. Raises ValueError that says of which jobs it cannot be done, and why.

    What is wrong with all of them is said as of a single one.
    """
    wrong: dict[str, list[Job]] = {}
    for job in jobs:
        try:
            run(job)
        except Exception as error:
            if (message := message_of(error)) is None:
                raise
            wrong.setdefault(message, []).append(job)
    if not wrong:
        return
    if [len(having) for having in wrong.values()] == [len(jobs)]:
        raise ValueError(next(iter(wrong)))
    count = sum(map(len, wrong.values()))
    lines = [f"{count} of {len(jobs)} cannot run, so none was started:"]
    lines += [f"{named(having)}: {message}" for message, having in wrong.items()]
    raise ValueError("\n".join(lines).replace("\n", "\n  "))


def named(jobs: Sequence[Job]) -> str:
    """Return what the jobs sweep, of many the first."""
    texts = [job.swept for job in jobs[:MOST_NAMED]]
    more = len(jobs) - len(texts)
    return "; ".join([*texts, *([f"and {more} more"] if more else [])])
