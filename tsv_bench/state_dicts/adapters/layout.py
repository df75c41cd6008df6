"""Where a vector's layers stand in an adapter that peft loads: keys, and its configuration."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tsv_bench.state_dicts.adapters.adapter import AdapterStateDict
from tsv_bench.state_dicts.adapters.names import PREFIX
from tsv_bench.task_vectors.lazy import LazyMapping
from tsv_bench.task_vectors.matrices import EMBEDDINGS_AND_HEADS, matches

IN_PROJ = "in_proj_weight"
HEAD = "lm_head"
TABLES = ("embed_tokens", "wte", "shared", "word_embeddings")  # that a head may be tied to


@dataclass(frozen=True, kw_only=True)
class Factored:
    """A matrix that an adapter holds as two factors."""

    module: str  # as the adapter names it
    owner: str  # the module that peft adapts: attention, of its out_proj
    stem: str  # key of its factors, up to lora_A
    rank: int
    transposed: bool  # stored as inputs by outputs
    times: int  # how often peft adds the product


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an adapter holds of each parameter."""

    factored: Mapping[str, Factored]
    whole: Mapping[str, str]  # parameter -> key
    settings: Mapping[str, Any]  # adapter_config.json


class Namer:
    """The names that an adapter has for a checkpoint's parameters, and which lie across.

    They are those of the ``adapters`` that are merged, if there are any.
    """

    def __init__(self, base: LazyMapping, adapters: Sequence[AdapterStateDict]) -> None:
        self._base, self._added, self._dropped = base, "", ""
        known = {n: c.transposed for a in adapters for n, c in a.changes.items() if c.low}
        sides = {n: side for n in base.names if (side := self._side(n)) is not None}
        found = set(known.values()) or set(sides.values())
        self._across = len(found) == 1 and found.pop()
        self._sides = sides | known
        for name, module in adapters[0].module_of.items() if adapters else ():
            own = name.rpartition(".")[0]
            if own != module:
                self._added = module.removesuffix(own) if module.endswith(own) else ""
                self._dropped = own.removesuffix(module) if own.endswith(module) else ""
                break

    def __call__(self, name: str) -> str:
        if self._dropped:
            return name.removeprefix(self._dropped)
        head = name.startswith(("lm_head.", "score.", "classifier."))
        return name if head else self._added + name

    def across(self, name: str) -> bool:
        """Return whether a matrix is stored as inputs by outputs."""
        return self._sides.get(name, self._across)

    def _side(self, name: str) -> bool | None:
        """Tell from the length of a module's bias how its matrix lies; None: it does not say."""
        shape, bias = self._base.shape(name), f"{name.removesuffix('weight')}bias"
        if len(shape) != 2 or not name.endswith(".weight") or bias not in self._base.names:
            return None
        length = tuple(self._base.shape(bias))
        return length == (shape[1],) if shape[0] != shape[1] else None


def lay_out(
    base: LazyMapping, changed: Collection[str], ranks: Mapping[str, int], name_of: Namer
) -> Layout:
    """Return where each of the ``changed`` parameters stands in an adapter.

    ``ranks``: of each matrix, the most that its factors may have. Embeddings, output heads, norms
    and convolutions stand there whole. Raises ValueError for one that peft has no place for.
    """
    factored, whole, modules = {}, {}, {}
    for name in changed:
        module, _, last = name.rpartition(".")
        if _is_factored(base, name):
            attention = all(own in base.names for own in _both(name))
            for own in _both(name) if attention else [name]:
                factored[own] = _factored(own, ranks, name_of, attention)
        elif last == "weight" and module:
            modules[module] = None
        elif last not in ("bias", "in_proj_bias"):
            raise ValueError(
                f"write=lora has no place for {name!r}, of shape {tuple(base.shape(name))}: peft "
                f"adapts weights of modules, and this is a parameter of its own. write=model or "
                f"write=vector hold it."
            )
    biases = [n for n in changed if n.rpartition(".")[0] not in modules and n.endswith("bias")]
    for name in base.names:  # peft wants all parameters of a module that is saved whole
        if name.rpartition(".")[0] in modules:
            whole[name] = PREFIX + name_of(name)
    adapted = {name.rpartition(".")[0] for name in factored}
    for name in biases:
        whole[name] = PREFIX + _bias_key(name, adapted, name_of)
    ours = all(name.rpartition(".")[0] in adapted for name in biases)
    bias = "none" if not biases else "lora_only" if ours else "all"
    saved = [name_of(f"{module}.weight").removesuffix(".weight") for module in modules]
    tied = [name for name in whole if matches(name, TABLES)]
    if tied and not any(part == HEAD for name in base.names for part in name.split(".")):
        raise ValueError(
            f"write=lora has no place for {tied[0]!r}: the output head is tied to it, and peft "
            f"changes one of them without the other. write=model or write=vector hold it."
        )
    settings = _settings(factored, saved, bias)
    return Layout(factored=factored, whole=whole, settings=settings)


def _is_factored(base: LazyMapping, name: str) -> bool:
    if len(base.shape(name)) != 2 or matches(name, EMBEDDINGS_AND_HEADS):
        return False
    both = _both(name)
    return name.endswith(".weight") or name == both[0] and both[1] in base.names


def _both(name: str) -> list[str]:
    """Return the two matrices of attention, of which peft wants both, given one of them."""
    module = name.removesuffix(f".{IN_PROJ}").removesuffix(".out_proj.weight")
    return [f"{module}.{IN_PROJ}", f"{module}.out_proj.weight"]


def _factored(name: str, ranks: Mapping[str, int], name_of: Namer, attention: bool) -> Factored:
    module = name_of(name).rpartition(".")[0]
    owner = module.removesuffix(".out_proj") if attention else module
    stem = f"{owner}.base_layer.out_proj" if owner != module else module
    # Attention has one rank for both of its matrices.
    rank = max(ranks[own] for own in (_both(name) if attention else [name]))
    return Factored(
        module=module, owner=owner, stem=PREFIX + stem, rank=rank,
        transposed=name_of.across(name), times=1 if owner == module else 2,
    )  # fmt: skip


def _bias_key(name: str, adapted: Collection[str], name_of: Namer) -> str:
    module, _, last = name.rpartition(".")
    if module not in adapted:
        return name_of(name)
    own = name_of(name).rpartition(".")[0]
    attention = own.removesuffix(".out_proj")
    if attention != own and module.removesuffix(".out_proj") in adapted:
        return f"{attention}.base_layer.out_proj.base_layer.{last}"
    return f"{own}.base_layer.{last}"


def _settings(factored: Mapping[str, Factored], saved: Iterable[str], bias: str) -> dict[str, Any]:
    """Return the configuration of an adapter whose products have the scale 1."""
    ranks = {own.owner: own.rank for own in factored.values()}
    usual = max(ranks.values(), default=1)
    other = {f"^{module}": rank for module, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": list(ranks),
        "modules_to_save": list(saved) or None,
        "bias": bias,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": any(own.transposed for own in factored.values()),
    }
