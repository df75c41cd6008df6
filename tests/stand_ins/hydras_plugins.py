"""Launchers and sweepers as plugins bring them: jobs in other processes, going by results."""

import copy
import os
import sys
from dataclasses import replace
from types import SimpleNamespace

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus

from tsv_bench.cli.sweep.elsewhere import Home

MODULE = "hydra_plugins.made_up"  # Hydra takes no plugin from elsewhere


class Forking(BasicLauncher):
    """Each job in a process of its own, of which those in ``killed`` do nothing."""

    killed = ()

    def launch(self, job_overrides, initial_job_idx):
        done = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            if child := os.fork():
                os.waitpid(child, 0)
                done.append(JobReturn(status=JobStatus.COMPLETED))
                continue
            try:
                if number not in self.killed:
                    super().launch([overrides], number)
                    sys.stderr.flush()
            finally:
                os._exit(0)
        return done


class Elsewhere(BasicLauncher):
    """Each job in this process, which takes itself for another one (`register`)."""


class Failing(BasicLauncher):
    """Launches the first job, and fails."""

    def launch(self, job_overrides, initial_job_idx):
        super().launch(job_overrides[:1], initial_job_idx)
        raise RuntimeError("a node is gone")


class ByResults(BasicSweeper):
    """Notes what each job returned; of one that failed, why."""

    metrics = ()

    def sweep(self, arguments):
        batches = self.split_arguments(self.parsed(arguments), None)
        results = self.launcher.launch(batches[0], initial_job_idx=0)
        type(self).metrics = [self.metric(result) for result in results]

    def parsed(self, arguments):
        return OverridesParser.create(self.hydra_context.config_loader).parse_overrides(arguments)

    @staticmethod
    def metric(result):
        try:
            return float(result.return_value)
        except Exception as error:
            return str(error)[:30]


def register(monkeypatch):
    """Make the plugins known to Hydra until the end of a test; return their classes."""
    known, store = Plugins.instance().class_name_to_class, ConfigStore.instance()
    monkeypatch.setattr(store, "repo", copy.deepcopy(store.repo))
    for group, name, plugin in (
        ("launcher", "elsewhere", Elsewhere),
        ("launcher", "forking", Forking),
        ("launcher", "failing", Failing),
        ("sweeper", "by_results", ByResults),
    ):
        target = f"{MODULE}.{plugin.__name__}"
        monkeypatch.setitem(known, target, plugin)
        more = {"max_batch_size": None, "params": None} if group == "sweeper" else {}
        store.store(group=f"hydra/{group}", name=name, node={"_target_": target, **more})
    return SimpleNamespace(Forking=Forking, ByResults=ByResults)


def take_for_elsewhere(monkeypatch, **of_home):
    """Let jobs take the command for one of another process, of which they know what it sent."""
    here = Home.here
    monkeypatch.setattr(Home, "here", lambda *typed: replace(here(*typed), process=0, **of_home))
