"""What an adapter's configuration says: its scale and rank by module, and what is not read."""

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

CONFIG_FILE = "adapter_config.json"
MAX_CONFIG = 2**24  # bytes
MAX_PATTERN, MAX_REPEATS = 500, 4  # of a pattern of modules: more could take for ever to match
# Settings that make an adapter something else than W + scale B A -> what it is then.
OTHER_FORMS = {
    "kasa_config": "KaSA, which changes the base weights",
    "alora_invocation_tokens": "aLoRA, which acts on some tokens only",
    "use_qalora": "QA-LoRA, whose A has pooled inputs",
    "use_bdlora": "BD-LoRA, whose factors are block-diagonal",
    "monteclora_config": "MonteCLoRA, whose factors are random",
    "velora_config": "VeLoRA",
    "arrow_config": "an Arrow router of several adapters",
    "megatron_config": "an adapter of Megatron's parallel layers",
    "layer_replication": "an adapter of a model with replicated layers",
    "target_parameters": "an adapter of stacked parameters (experts)",
}
# Initializations that take from the base weights what they put into the factors.
CHANGE_THE_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")
KEEP_THE_BASE = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What is needed of adapter_config.json to know the fine-tuned weights."""

    path: Path
    rank: int
    alpha: float
    rslora: bool = False
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    transposed: bool = False  # fan_in_fan_out: counts only where a matrix is square
    dora: bool = False
    lora_bias: bool = False
    tokens: Sequence[int] | Mapping[str, Sequence[int]] | None = None
    base_name: str | None = None  # the model that it was trained on
    settings: Mapping[str, Any]  # the whole file

    def rank_of(self, module: str) -> int:
        return self.rank_pattern.get(first_match(self.rank_pattern, module), self.rank)

    def scale_of(self, module: str) -> float:
        """Return what B A is multiplied by in this module."""
        alpha = self.alpha_pattern.get(first_match(self.alpha_pattern, module), self.alpha)
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def first_match(patterns: Mapping[str, Any], module: str) -> str:
    """Return the first pattern that fits the end of a module's name, from a dot on; or ""."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), "")


def read_config(path: Path) -> AdapterConfig:
    """Read adapter_config.json.

    Raises ValueError if it is damaged, or an adapter of another kind than LoRA or DoRA, which it
    names.
    """
    settings = _load(path)
    _check_kind(path, settings)
    rank, alpha = settings.get("r"), settings.get("lora_alpha", 8)
    if not _is_whole(rank) or rank < 1:
        raise ValueError(f"{path} says r={rank!r}, which is no rank: a whole number from 1 on.")
    if not _is_number(alpha):
        raise ValueError(f"{path} says lora_alpha={alpha!r}, which is no number.")
    patterns = {key: settings.get(key) or {} for key in ("rank_pattern", "alpha_pattern")}
    for key, pattern in patterns.items():
        _check_pattern(path, key, pattern)
    if any(not _is_whole(r) or r < 1 for r in patterns["rank_pattern"].values()):
        raise ValueError(f"{path} says under rank_pattern what is no rank, a whole number.")
    base_name = settings.get("base_model_name_or_path")
    return AdapterConfig(
        path=path,
        rank=rank,
        alpha=float(alpha),
        rslora=bool(settings.get("use_rslora")),
        rank_pattern=patterns["rank_pattern"],
        alpha_pattern=patterns["alpha_pattern"],
        transposed=bool(settings.get("fan_in_fan_out")),
        dora=bool(settings.get("use_dora")),
        lora_bias=bool(settings.get("lora_bias")),
        tokens=_tokens(path, settings.get("trainable_token_indices")),
        base_name=base_name if isinstance(base_name, str) else None,
        settings=settings,
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError("too large")
        settings = json.loads(path.read_bytes())
        if not isinstance(settings, dict):
            raise ValueError("no mapping")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a whole configuration of an adapter. Fetch or save the adapter again."
        ) from error
    return settings


def _check_kind(path: Path, settings: Mapping[str, Any]) -> None:
    """Raise ValueError that names what the adapter is, unless it adds a product to weights."""
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ValueError(
            f"{path} says peft_type={kind!r}; of adapters only LORA is read. Merge it into its "
            f"model with peft (merge_and_unload, save_pretrained), and give that folder."
        )
    for key, what in OTHER_FORMS.items():
        if settings.get(key):
            raise ValueError(
                f"{path} says {key}={str(settings[key])[:80]}: it is {what}, which is not read. "
                f"Merge it into its model with peft (merge_and_unload, save_pretrained), and give "
                f"that folder."
            )
    start = settings.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(CHANGE_THE_BASE):
        raise ValueError(
            f"{path} says init_lora_weights={start!r}: its training began from changed base "
            f"weights, so that it does not belong to the pretrained ones. Save it with peft's "
            f"path_initial_model_for_weight_conversion, which converts it, and give that."
        )
    if start not in KEEP_THE_BASE:
        log.warning(
            f"{path} says init_lora_weights={start!r}, which is unknown here. If it changes the "
            f"base weights, the adapter does not belong to the pretrained ones."
        )


def _check_pattern(path: Path, key: str, pattern: object) -> None:
    whole = isinstance(pattern, dict) and all(_is_number(value) for value in pattern.values())
    if not whole:
        raise ValueError(f"{path} says {key}={str(pattern)[:80]}, which is not numbers by module.")
    for text in pattern:
        try:
            re.compile(text)
            quick = len(text) <= MAX_PATTERN and not re.search(r"\)[*+{]", text)
            quick = quick and len(re.findall(r"[*+{]", text)) <= MAX_REPEATS
        except (re.error, RecursionError, OverflowError):
            quick = False
        if not quick:
            raise ValueError(
                f"{path} has under {key} {text[:80]!r}, which is no simple pattern of names. Write "
                f"the modules' names there."
            )


def _tokens(path: Path, indices: object) -> Sequence[int] | Mapping[str, Sequence[int]] | None:
    lists = indices.values() if isinstance(indices, dict) else [indices or []]
    whole = all(isinstance(found, list) and all(map(_is_whole, found)) for found in lists)
    if not whole or any(index < 0 for found in lists for index in found):
        raise ValueError(
            f"{path} says trainable_token_indices={str(indices)[:80]}, which are no numbers of "
            f"rows. Fetch or save the adapter again."
        )
    return indices or None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
