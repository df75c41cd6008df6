"""Adapters among the checkpoints that a command is given."""

import logging
from collections.abc import Mapping
from pathlib import Path

from tsv_bench.files import remembered_sha256
from tsv_bench.state_dicts.adapters.adapter import AdapterTaskVector, config_of, is_adapter
from tsv_bench.state_dicts.state_dict import StateDict

log = logging.getLogger(__name__)


def path_of_adapter(path: Path | str, pretrained: Path | str) -> Path | str:
    """Return the adapter of a path as BASE+ADAPTER, and any other path as it is.

    Raises ValueError if BASE is not the pretrained checkpoint.
    """
    base, plus, adapter = str(path).rpartition("+")
    if not plus or Path(path).exists() or not Path(adapter).exists():
        return path
    if Path(base).resolve() != Path(pretrained).resolve():
        raise ValueError(
            f"{path} is an adapter on {base}, and pretrained= is {pretrained}. Give the adapter "
            f"alone if both are the same weights; else merge it into its own base first, with "
            f"method=weight_average pretrained={base} finetuned='{{one: {adapter}}}', and give "
            f"what that writes."
        )
    return adapter


def check_whole(pretrained: StateDict) -> None:
    """Raise ValueError if the pretrained checkpoint is an adapter."""
    if is_adapter(pretrained):
        raise ValueError(
            f"pretrained: {pretrained.path} is an adapter. pretrained= is the whole model that "
            f"adapters were trained on; adapters go under finetuned=."
        )


def warn_of_other_bases(vectors: Mapping[str, Mapping]) -> None:
    """Log a warning if adapters say that they were trained on models of different names."""
    configs = {t: v.config for t, v in vectors.items() if isinstance(v, AdapterTaskVector)}
    named = {task: config.base_name for task, config in configs.items() if config.base_name}
    first = next(iter(named), None)
    for task, base in named.items():
        if base != named[first]:
            log.warning(
                f"{task} is an adapter of {base}, {first} of {named[first]}. If these are other "
                f"weights, the adapters do not belong to one pretrained checkpoint."
            )
            return


def config_hash(state: StateDict) -> dict[str, str]:
    """Return the sha256 of an adapter's configuration by its file's name; {} of others."""
    if not is_adapter(state):
        return {}
    path = config_of(state).path
    return {path.name: remembered_sha256(path)}
