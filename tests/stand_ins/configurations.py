"""Composed configurations, as the commands get them."""

from functools import cache

from hydra import compose, initialize_config_dir

from tsv_bench.cli.config.search_path import CONF


@cache
def composed(command, *overrides):
    """The configuration, of tsv-bench with one task (quicker) unless it is about suites."""
    if command == "bench" and not any("suite" in override for override in overrides):
        overrides = ("task@suite.tasks=[digits]", *overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, list(overrides))
