"""Hydra's composing, with two short cuts; it was a quarter of the time of all tests.

Processes of their own that tests start compose without them.
"""

import contextlib
import os
import pickle

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from hydra.types import RunMode

from tsv_bench.cli.config.search_path import CONF

PACKAGED = {"pkg://hydra.conf", "structured://", f"file://{CONF}", str(CONF)}


def read_once():
    """Read each file of the package and of Hydra once, by libyaml, and copy what was read.

    promises/test_conf.py says that libyaml reads the same.
    """
    Plugins.instance()  # registers the sources: of classes that it makes anew
    sources = SourcesRegistry.instance().types
    for source, folder in ((sources["file"], str(CONF)), (sources["pkg"], "hydra.conf")):
        source.load_config = once(source.load_config, folder)


def once(read, folder):
    found = {}

    def load(self, config_path):
        if self.path != folder:  # libyaml has other words for a user's mistakes
            return read(self, config_path)
        key = (self.provider, config_path)
        if key not in found:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(yaml, "SafeLoader", yaml.CSafeLoader)
                found[key] = pickle.dumps(read(self, config_path))
        return pickle.loads(found[key])

    return load


compose = ConfigLoaderImpl._load_configuration_impl


def compose_once():
    """Compose each command line once and copy the outcome; a user's own folders are read anew.

    A command composes up to four times what other tests composed before.
    """
    composed = {}

    def load(self, config_name, overrides, run_mode, **more):
        paths = [part.path for part in self.config_search_path.get_path()]
        if set(paths) - PACKAGED or any("hydra.searchpath" in line for line in overrides):
            return compose(self, config_name, overrides, run_mode, **more)
        if run_mode != RunMode.RUN:  # allows more; what is allowed for one job is the same
            with contextlib.suppress(Exception):
                return load(self, config_name, overrides, RunMode.RUN)
        checked = more.get("validate_sweep_overrides", True)
        key = (JobRuntime().get("name"), config_name, *overrides, run_mode, checked)
        if key not in composed:  # pickle copies five times as fast as copy.deepcopy
            composed[key] = pickle.dumps(compose(self, config_name, overrides, run_mode, **more))
        config = pickle.loads(composed[key])
        config.hydra.runtime.cwd = os.getcwd()
        return config

    ConfigLoaderImpl._load_configuration_impl = load
