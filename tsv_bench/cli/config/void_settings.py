"""Warnings about settings that have no effect.

``only_if`` in the configuration says when a setting counts:

    only_if:
      threshold: {drop: threshold}   # threshold counts if drop is "threshold"
      seed: {density: {not: 1}}      # seed counts if density is not 1
      alpha: {write: [model, lora]}  # alpha counts if write is one of these
      alphas: in tsv-bench           # alphas never count here; the text says where they do
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tsv_bench.cli.config.overrides import as_typed

log = logging.getLogger(__name__)


def warn_of_void_settings(config: DictConfig) -> None:
    """Log a warning for each setting of the command line that has no effect in this job."""
    hydra = HydraConfig.get()
    changed = {override.lstrip("+").partition("=")[0] for override in hydra.overrides.task}
    folders = [Path(s.path) for s in hydra.runtime.config_sources if s.schema == "file"]
    nodes = {"": (config, f"{hydra.job.config_name}.yaml")}
    if "method" in config:
        nodes["method."] = (config.method, f"method/{hydra.runtime.choices.method}.yaml")
    for prefix, (node, file) in nodes.items():
        rules, defaults = node.get("only_if"), OmegaConf.create()
        # Reading them takes longer than the rest: only where they are looked at.
        if OmegaConf.is_dict(rules) and changed.intersection(prefix + key for key in rules):
            files = (folder / file for folder in folders if (folder / file).exists())
            defaults = next(map(OmegaConf.load, files), defaults)
        for message in void_settings(node, defaults, changed, prefix):
            log.warning(message)


def void_settings(
    node: DictConfig, defaults: Mapping[str, Any], changed: Collection[str], prefix: str = ""
) -> Iterator[str]:
    """Yield a message for each ``changed`` setting of a node that has no effect.

    Settings at their default are skipped. ``prefix`` stands before their keys. Raises ValueError if
    ``only_if`` is malformed.
    """
    rules = node.get("only_if") or OmegaConf.create()
    for key, conditions in rules.items() if OmegaConf.is_dict(rules) else [("only_if", rules)]:
        if not isinstance(conditions, str) and not OmegaConf.is_dict(conditions):
            raise ValueError(
                f"{prefix}only_if has {key}: {conditions}, which is not what a setting needs of "
                f"others, as in {{threshold: {{drop: threshold}}}}."
            )
        value = OmegaConf.select(node, key)
        if prefix + key not in changed or value == OmegaConf.select(defaults, key):
            continue
        void = f"{prefix}{key}={as_typed(value)} has no effect: it counts only"
        if isinstance(conditions, str):
            yield f"{void} {conditions}."
            continue
        for other, wanted in conditions.items():
            found = OmegaConf.select(node, other)
            if not holds(found, wanted):
                unlike = f" where {prefix}{other} is not {as_typed(found)}."
                listed = wanted if OmegaConf.is_list(wanted) else [wanted]
                like = " or ".join(f"{prefix}{other}={as_typed(value)}" for value in listed)
                like = f" with {like}, and that is {as_typed(found)}."
                yield void + (unlike if OmegaConf.is_dict(wanted) else like)
                break


def holds(found: Any, wanted: Any) -> bool:
    """Return whether a value is one that ``only_if`` wants, or not the one it excludes."""
    if OmegaConf.is_dict(wanted):
        return found != wanted["not"]
    return found in wanted if OmegaConf.is_list(wanted) else found == wanted
