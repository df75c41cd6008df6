"""Hydra's composing, with short cuts; without them it is two fifths of the time of all tests.

Processes of their own that tests start compose without them.
"""

import contextlib
import copy
import os
import pickle
from pathlib import Path

import pytest
import yaml
from hydra._internal import config_loader_impl, target_policy
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import Overrides
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import OmegaConf

from tsv_bench.cli.config.search_path import CONF

PACKAGED = {"pkg://hydra.conf", "structured://", f"file://{CONF}", str(CONF)}
SOURCES = {"hydra.conf", "", str(CONF)}  # as their sources call them


def shorten():
    """Take all of the short cuts."""
    read_once()
    merge_once()
    compose_once()
    CachingConfigRepository.__init__ = shallow
    # Asked of each object that is made, it goes through all modules that are imported.
    is_namespace = target_policy._is_loaded_module_namespace
    target_policy._is_loaded_module_namespace = lambda value: (
        type(value) is dict and "__name__" in value and is_namespace(value)
    )


def shallow(self, delegate):
    """As Hydra's, which copies all that was ever registered; only the list of sources changes."""
    self.delegate, self.cache = copy.copy(delegate), {}


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
select_files = config_loader_impl.create_defaults_list
merge_files = ConfigLoaderImpl._compose_config_from_defaults_list


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
        OmegaConf.clear_cache(config)  # of the time when it was composed
        config.hydra.runtime.cwd = os.getcwd()
        return config

    ConfigLoaderImpl._load_configuration_impl = load


def merge_once():
    """Merge each selection of files once, and copy the outcome before values of a line are set.

    Command lines of one experiment or method differ by their values.
    """
    kept = {}

    def copied(key, make):
        if key not in kept:
            kept[key] = pickle.dumps(make())
        return pickle.loads(kept[key])

    def select(repo, config_name, overrides_list, **more):
        values = Overrides(repo, overrides_list).config_overrides
        groups = [each for each in overrides_list if not any(each is value for value in values)]
        lines = (each.input_line for each in groups)
        key = ("select", *contents(repo), config_name, *lines, *more.items())
        found = copied(key, lambda: select_files(repo, config_name, groups, **more))
        found.config_overrides = values
        return found

    def merge(self, defaults, repo):
        lines = (tuple(vars(default).items()) for default in defaults)
        key = ("merge", *contents(repo), *lines)
        config = copied(key, lambda: merge_files(self, defaults, repo))
        OmegaConf.clear_cache(config)  # of the time when it was merged
        return config

    config_loader_impl.create_defaults_list = select
    ConfigLoaderImpl._compose_config_from_defaults_list = merge


def contents(repo):
    """What is read: the folders of the package, and the files of a user's folders."""
    for source in repo.get_sources():
        if source.path in SOURCES:
            yield source.path
        else:
            for path in sorted(Path(source.path).rglob("*.yaml")):
                yield str(path.relative_to(source.path)), path.read_bytes()
