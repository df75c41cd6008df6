"""Hydra's composing, with two short cuts; it was a quarter of the time of all tests.

Processes of their own that tests start compose without them.
"""

import copy
import os

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.utils import JobRuntime

from tsv_bench.cli.config.search_path import CONF

PACKAGED = {"pkg://hydra.conf", "structured://", f"file://{CONF}", str(CONF)}


def read_quickly():
    """Read the packaged files by libyaml; promises/test_conf.py says that it reads the same."""
    read = FileConfigSource.load_config

    def load(self, config_path):
        if self.path != str(CONF):  # libyaml has other words for a user's mistakes
            return read(self, config_path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yaml, "SafeLoader", yaml.CSafeLoader)
            return read(self, config_path)

    FileConfigSource.load_config = load


def compose_once():
    """Compose each command line once and copy the outcome; a user's own folders are read anew.

    A command composes three times what other tests composed before.
    """
    compose, composed = ConfigLoaderImpl._load_configuration_impl, {}

    def load(self, config_name, overrides, *more, **settings):
        paths = [part.path for part in self.config_search_path.get_path()]
        if set(paths) - PACKAGED or any("hydra.searchpath" in line for line in overrides):
            return compose(self, config_name, overrides, *more, **settings)
        name = JobRuntime().get("name")
        key = (name, config_name, *overrides, *more, *settings.items())
        if key not in composed:
            composed[key] = compose(self, config_name, overrides, *more, **settings)
        config = copy.deepcopy(composed[key])
        config.hydra.runtime.cwd = os.getcwd()
        return config

    ConfigLoaderImpl._load_configuration_impl = load
