"""The tensors of an adapter by their names, and the pretrained parameters that they change."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

PREFIX = "base_model.model."
FACTORS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
TOKENS = "token_adapter.trainable_tokens_delta"
DEFAULT = "default"


@dataclass(frozen=True)
class Part:
    """One tensor of an adapter: what it is, and of which module or parameter."""

    key: str  # its name in the file
    kind: str  # one of FACTORS, "lora_bias", "tokens", "frozen" (a copy), "whole" (a replacement)
    name: str  # of the module; of a copy or a replacement the parameter's
    owner: str  # the module whose settings count
    adapter: str = DEFAULT

    @property
    def times(self) -> int:
        """How often peft adds the product, in its forward pass as in merge_and_unload.

        Twice for the output of `torch.nn.MultiheadAttention`: once by the attention, once by its
        own layer.
        """
        return 1 if self.owner == self.name else 2


def is_lora(names: Iterable[str]) -> bool:
    """Return whether these are names of an adapter's tensors."""
    return any(re.search(r"\.lora_(embedding_)?[AB](\.|$)", name) for name in names)


def parts_of(path: Path, keys: Iterable[str]) -> list[Part]:
    """Return what each tensor is. Raises ValueError if they are of several adapters."""
    keys = list(keys)
    whole = all(key.startswith(PREFIX) for key in keys)
    parts = [part for key in keys if (part := _part(key, key[len(PREFIX) :] if whole else key))]
    if len(adapters := sorted({part.adapter for part in parts} - {DEFAULT})) > 1:
        raise ValueError(
            f"{path} holds {len(adapters)} adapters, {', '.join(adapters)[:200]}. Save the one "
            f"that is meant with peft's save_pretrained."
        )
    return parts


def _part(key: str, name: str) -> Part | None:
    """Return what a tensor is; None if it is a copy of what the adapter does not change."""
    found = re.fullmatch(rf"(.+)\.({'|'.join(FACTORS)})((?:\.[^.]+)*)", name)
    if found:
        module, kind, rest = found[1], found[2], found[3].split(".")[1:]
        what = rest.pop() if rest and rest[-1] in ("weight", "bias") else "weight"
        if len(rest) < 2 and (what == "weight" or kind == "lora_B"):
            kind = "lora_bias" if what == "bias" else kind
            # Within a module that has several matrices: attn.base_layer.out_proj.
            plain, owner = module.replace(".base_layer.", "."), module.split(".base_layer.")[0]
            return Part(key, kind, plain, owner, *rest)
    if found := re.fullmatch(rf"(.+)\.{re.escape(TOKENS)}((?:\.[^.]+)?)", name):
        return Part(key, "tokens", found[1], found[1], *found[2].split(".")[1:])
    if found := re.fullmatch(r"(.+)\.modules_to_save\.([^.]+)\.(.+)", name):
        return Part(key, "whole", f"{found[1]}.{found[3]}", found[1], found[2])
    if ".original_module." in name:
        return None
    if found := re.fullmatch(r"(.+?)(\.token_adapter)?\.base_layer\.(.+)", name):
        plain = f"{found[1]}.{found[3]}".replace(".base_layer.", ".")
        kind = "whole" if plain.endswith("bias") else "frozen"
        return Part(key, kind, plain, found[1])
    return Part(key, "whole", name, name)


class BaseNames:
    """The pretrained parameters by the names that an adapter has for them.

    A model that was loaded by another class has its names behind a prefix, or without one:
    transformer.h.0 and h.0 of GPT-2.
    """

    def __init__(self, path: Path, modules: Collection[str], base: Collection[str]) -> None:
        """``modules``: those with factors. Raises ValueError if one of them is not in ``base``."""
        self._base = base
        lacking = min(modules, default="")
        for prefix in ["", *_first_parts(modules), *_first_parts(base)]:
            self._prefix = prefix
            lacking = next((m for m in sorted(modules) if self.weight(m) is None), None)
            if lacking is None:
                return
        self._prefix = ""
        lacking = next(m for m in sorted(modules) if self.weight(m) is None)
        raise ValueError(
            f"{path} changes {lacking!r}, and the pretrained checkpoint has no such matrix: its "
            f"parameters are named as {min(base)!r}. Give the checkpoint that the adapter was "
            f"trained on, saved by the same library."
        )

    def parameter(self, name: str) -> str | None:
        """Return the pretrained checkpoint's name of a parameter, or None if it has none."""
        for found in (name, name.removeprefix(self._prefix), self._prefix + name):
            if found in self._base:
                return found
        return None

    def weight(self, module: str) -> str | None:
        """Return the name of a module's matrix: its weight, or attention's fused projection."""
        return self.parameter(f"{module}.weight") or self.parameter(f"{module}.in_proj_weight")


def _first_parts(names: Iterable[str]) -> list[str]:
    """Return what names begin with, up to the first and to the second dot."""
    found = {}
    for name in names:
        parts = name.split(".")
        for count in (1, 2):
            if len(parts) > count:
                found[".".join(parts[:count]) + "."] = None
    return list(found)
