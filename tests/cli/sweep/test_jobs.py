"""The jobs of a sweep, before the first starts."""

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_repository import ConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from stand_ins.composing import by_hydra

from tsv_bench.cli.config.search_path import CONF
from tsv_bench.cli.sweep.jobs import (
    MOST_NAMED,
    Job,
    check_apart,
    check_jobs,
    jobs_of,
    keep_composed,
    named,
    reading_once,
)


@pytest.fixture
def sweep():
    """A function of a command and its overrides, which returns what Hydra sweeps from."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield lambda name, *lines: loader.load_configuration(name, list(lines), RunMode.MULTIRUN)


def test_jobs_are_those_that_hydra_makes_of_the_command_line(sweep):
    found = jobs_of(sweep("bench", "method=ties,svc", "seed=0,1", "suite=mini2"))
    assert [job.swept for job in found] == [
        f"method={method} seed={seed}" for method in ("ties", "svc") for seed in (0, 1)
    ]
    assert [job.number for job in found] == [0, 1, 2, 3]
    assert all(job.overrides[2] == "suite=mini2" for job in found)


def test_jobs_are_those_of_an_experiment_too(sweep):
    found = jobs_of(sweep("bench", "experiment=rank_sweep", "method.rank_fraction=0.5,0.1"))
    texts = [job.swept for job in found]
    assert texts[0] == "method=tsv_compress method.rank_fraction=0.5" and len(texts) == 4


def test_a_single_job_is_named_by_all_that_was_said(sweep):
    [job] = jobs_of(sweep("bench", "task@suite.tasks=[signs]", "seed=3"))
    assert job.swept == "suite.tasks=[signs] seed=3"


def test_jobs_of_a_sweeper_that_goes_by_results_are_not_known(sweep):
    config = sweep("bench", "seed=0,1")
    config.hydra.sweeper._target_ = "hydra_plugins.another.Sweeper"
    assert jobs_of(config) is None


def test_each_job_is_checked_in_the_place_that_it_will_have(sweep):
    config = sweep("bench", "method=ties,svc", "seed=0,1")
    seen = []
    before = HydraConfig.instance().cfg
    check_jobs(
        jobs_of(config),
        config,
        [lambda job: seen.append((job.method.name, job.seed, HydraConfig.get().job.num))],
    )
    assert seen == [("ties", 0, 0), ("ties", 1, 1), ("svc", 0, 2), ("svc", 1, 3)]
    assert HydraConfig.instance().cfg is before


def refuse(*seeds):
    def check(config):
        if config.seed in seeds:
            raise ValueError(f"no seed is\n{min(seeds)}")

    return check


def test_jobs_with_a_mistake_are_named_with_it(sweep):
    config = sweep("bench", "method=ties", "seed=0,1,2")
    with pytest.raises(ValueError) as caught:
        check_jobs(jobs_of(config), config, [refuse(1, 2), refuse(0)])
    assert str(caught.value) == (
        "2 of 3 cannot run, so none was started:\n  seed=1; seed=2: no seed is\n  1"
    )


def test_a_mistake_of_all_jobs_is_said_once_and_as_of_one(sweep):
    config = sweep("bench", "method=ties", "seed=0,1,2")
    with pytest.raises(ValueError, match="^no seed is\n0$"):
        check_jobs(jobs_of(config), config, [refuse(0, 1, 2)])


def test_a_job_that_does_not_compose_is_a_mistake(sweep):
    config = sweep("bench", "method=ties,svc")
    ties, svc = jobs_of(config)
    odd = Job(1, (*svc.overrides, "method.density=0.1"), "method=svc")
    with pytest.raises(ValueError, match="1 of 2 cannot run.*\n  method=svc: .*method.density"):
        check_jobs([ties, odd], config, [])


def test_two_jobs_that_write_to_one_place_are_refused(sweep):
    config = sweep("merge", "method=ties,svc", "alpha=1,2", "output='${method.name}.pt'")
    jobs = jobs_of(config)
    configs = check_jobs(jobs, config, [])
    with pytest.raises(ValueError, match="^2 of 4 write output=ties.pt, so none was started: "):
        check_apart("output", jobs, configs)
    check_apart("output", jobs[1:3], configs[1:3])


@pytest.mark.parametrize(
    ("output", "names"),
    [("${method.name}", ["ties", "svc"]), ("${hydra:job.num}", ["0", "1"])],
)
def test_a_place_may_be_named_by_what_is_swept(output, names, sweep):
    config = sweep("merge", "method=ties,svc", f"output='{output}.pt'")
    found = []
    check_jobs(jobs_of(config), config, [lambda job: found.append(job.output)])
    assert found == [f"{name}.pt" for name in names]


def test_of_many_jobs_the_first_are_named():
    jobs = [Job(n, (), f"seed={n}") for n in range(MOST_NAMED + 2)]
    assert named(jobs) == "seed=0; seed=1; seed=2; and 2 more"


def test_each_file_is_read_once_for_all_jobs(sweep, monkeypatch):
    sweep("bench", "method=ties,svc")
    loader, read, paths = GlobalHydra.instance().config_loader(), ConfigRepository.load_config, []

    def noted(self, config_path):
        paths.append(config_path)
        return read(self, config_path)

    def compose(method):
        asked = {"config_name": "bench", "overrides": [f"method={method}"], "run_mode": RunMode.RUN}
        return OmegaConf.to_yaml(by_hydra(loader, **asked))  # unresolved: the time goes on

    methods = ("ties", "svc", "ties")
    monkeypatch.setattr(ConfigRepository, "load_config", noted)
    with reading_once():
        found = [compose(method) for method in methods]
    assert "method/ties" in paths and len(paths) == len(set(paths))
    assert ConfigRepository.load_config is noted
    assert found == [compose(method) for method in methods]


def test_hydra_gets_the_configurations_that_it_would_compose(sweep, tmp_path):
    config = sweep("bench", "method=ties,svc")
    jobs = jobs_of(config)
    configs = check_jobs(jobs, config, [lambda job: None])
    config.hydra.sweep.dir = str(tmp_path)  # settled after the check
    config.hydra.overrides.hydra.append(f"hydra.sweep.dir={tmp_path}")
    loader = GlobalHydra.instance().config_loader()
    anew = [loader.load_sweep_config(config, list(job.overrides)) for job in jobs]
    keep_composed(jobs, configs, config)
    for job, wanted in zip(jobs, anew, strict=True):
        wanted.hydra.job.id = wanted.hydra.job.num = job.number  # as the launcher sets them
        found = loader.load_sweep_config(config, list(job.overrides))
        assert found == wanted and found is not configs[job.number]
        found.seed = 5
        assert loader.load_sweep_config(config, list(job.overrides)) == wanted
    other = loader.load_sweep_config(config, ["method=iso_c"])
    assert other.method.name == "iso_c"
