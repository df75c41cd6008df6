"""Composed configurations, as the commands get them, and whether they fit what they configure."""

import inspect
from functools import cache

from hydra import compose, initialize_config_dir
from hydra.utils import get_class, get_method
from omegaconf import OmegaConf

from tsv_bench.cli.config.search_path import CONF


@cache
def composed(command, *overrides):
    """The configuration, of tsv-bench with one task (quicker) unless it is about suites."""
    if command == "bench" and not any("suite" in override for override in overrides):
        overrides = ("task@suite.tasks=[digits]", *overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, list(overrides))


def fits(node, *more, **keywords):
    """The node's function or class takes its keys; TypeError otherwise."""
    settings = OmegaConf.to_container(node, resolve=True)
    target, partial = settings.pop("_target_"), settings.pop("_partial_", False)
    found = get_class(target) if target.rpartition(".")[2][0].isupper() else get_method(target)
    bind = inspect.signature(found)
    (bind.bind_partial if partial else bind.bind)(*more, **settings, **keywords)
