"""Adapters among the checkpoints that a command is given."""

import logging
from collections.abc import Mapping
from pathlib import Path

from tsv_bench.files import remembered_sha256
from tsv_bench.state_dicts.adapters.adapter import AdapterTaskVector, config_of, is_adapter
from tsv_bench.state_dicts.state_dict import StateDict

log = logging.getLogger(__name__)


def check_whole(pretrained: StateDict) -> None:
    """Raise ValueError if the pretrained checkpoint is an adapter."""
    if is_adapter(pretrained):
        raise ValueError(
            f"pretrained: {pretrained.path} is an adapter. pretrained= is the whole model that "
            f"adapters were trained on; adapters go under finetuned=."
        )


def check_no_adapter(state: StateDict) -> None:
    """Raise ValueError if a checkpoint whose network is to be run is an adapter."""
    if is_adapter(state):
        raise no_network(state.path)


def no_network(path: Path) -> ValueError:
    """Return the error of an adapter where a whole network is wanted."""
    return ValueError(
        f"{path} is a LoRA adapter, which tsv-merge and tsv-analyze read. Here a whole checkpoint "
        f"is wanted. Write it first: tsv-merge method=weight_average pretrained=BASE "
        f"finetuned='{{one: {path}}}' write=model output={path.with_suffix('').name}.safetensors, "
        f"where BASE is what it was trained on."
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
    adapter = getattr(state, "adapter", state)
    if not is_adapter(adapter):
        return {}
    path = config_of(adapter).path
    return {path.name: remembered_sha256(path)}
