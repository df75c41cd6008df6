"""Checkpoint files named on a command line, and the factor cache beside them."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tsv_bench.cli.launch import plain
from tsv_bench.cli.sweep.records import read_jobs

if TYPE_CHECKING:
    from tsv_bench.state_dicts.factor_cache import FactorCache

GB = 10**9  # bytes
# owner/name, without the ending of a file
HUB_ID = re.compile(
    r"[A-Za-z0-9][\w-]*/[A-Za-z0-9](?![\w.-]*\.(?:pt|pth|bin|ckpt|safetensors)$)[\w.-]*"
)


def make_cache(config: DictConfig) -> "FactorCache | None":
    """Return the factor cache, or None if there is no folder for it.

    Raises ValueError if its bound is not a number above zero.
    """
    check_cache(config)
    if config.cache.folder is None:
        return None
    from tsv_bench.state_dicts.factor_cache import FactorCache  # here: it takes torch

    num_bytes = int(config.cache.max_gb * GB)
    return FactorCache(config.cache.folder, num_bytes, largest_fraction())


def check_cache(config: DictConfig) -> None:
    """Raise ValueError if there is a folder of factors whose bound is not a number above zero."""
    if config.cache.folder is None:
        return
    bound = config.cache.max_gb
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not bound > 0:
        raise ValueError(
            f"cache.max_gb={bound!r} is not a number above zero. cache.folder=null goes without."
        )


def largest_fraction() -> float:
    """Return the largest rank fraction of this sweep, or 0: its first job computes so many factors.

    From the sweep's folder: a job may run where the command line is not known.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return 0.0
    found = 0.0
    for override in chain.from_iterable(read_jobs(Path(hydra.runtime.output_dir))):
        key, _, value = override.lstrip("+").partition("=")
        if key in ("method.rank_fraction", "rank_fraction"):
            with suppress(ValueError):  # null
                found = max(found, float(value))
    return found if found <= 1 else 0.0


def checkpoint_paths(
    config: DictConfig, example: str, *, without_pretrained: bool = False
) -> dict[str, str]:
    """Return the path of each task's checkpoint in ``finetuned``.

    Raises ValueError with the ``example`` of a command unless ``pretrained``, ``finetuned`` and
    ``output`` are all paths, and ``base``, where a command has one, is a path or null. So may
    ``pretrained`` be, ``without_pretrained``.
    """
    for key in ("pretrained", "finetuned", "output", *(["base"] if config.get("base") else [])):
        if config[key] is None and key == "pretrained" and without_pretrained:
            continue
        if config[key] is None:
            raise ValueError(f"{key}= is missing. As in: {example}")
        if key != "finetuned" and not isinstance(config[key], str):
            raise ValueError(
                f"{key}={config[key]!r} is not a path. A name that is a number needs quotes: "
                f"{key}=\"'3'\"."
            )
    finetuned = plain(config.finetuned) if isinstance(config.finetuned, DictConfig) else None
    if not finetuned or not all(isinstance(path, str) for path in finetuned.values()):
        raise ValueError(
            f"finetuned={config.finetuned!r} does not name the tasks' checkpoints. As in: "
            f"finetuned='{{cars: cars.pt, dtd: dtd.pt}}'"
        )
    return {str(task): path for task, path in finetuned.items()}


def check_there(paths: Mapping[str, str], what: str = "checkpoint") -> None:
    """Raise FileNotFoundError for the first path, by its name, where there is nothing."""
    for name, path in paths.items():
        base, _, adapter = path.rpartition("+")  # an adapter, as mergekit writes it
        if not (os.path.exists(path) or base and all(map(os.path.exists, (base, adapter)))):
            if Path(path).is_symlink():
                raise FileNotFoundError(
                    f"{name}: {path} is a link that leads to {os.readlink(path)}, and there is "
                    f"nothing. Was the {what} moved or removed? Make the link again, or name the "
                    f"{what} itself."
                )
            if what == "checkpoint" and HUB_ID.fullmatch(path):
                raise FileNotFoundError(
                    f"{name}: no checkpoint at {path}. If that is a model of the Hugging Face hub, "
                    f"fetch it: hf download {path} --local-dir {path.split('/')[1]}, then name the "
                    f"folder: {path.split('/')[1]}. Paths are taken from {Path.cwd()}."
                )
            raise FileNotFoundError(
                f"{name}: no {what} at {path}. Paths are taken from the current folder, "
                f"{Path.cwd()}."
            )
