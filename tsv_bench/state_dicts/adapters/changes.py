"""What an adapter does to each pretrained parameter, told from the names and shapes alone."""

import logging
from dataclasses import dataclass, replace

from tsv_bench.state_dicts.adapters.config import CONFIG_FILE, AdapterConfig
from tsv_bench.state_dicts.adapters.names import BaseNames, Part, parts_of
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.lazy import LazyMapping

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an adapter does to one parameter: keys of its tensors, each None if there is none."""

    low: tuple[str, str] | None = None  # W + scale B A: A and B; of embeddings, too
    transposed: bool = False  # W is stored as inputs by outputs
    scale: float = 1.0
    magnitude: str | None = None  # DoRA: the norms of W's rows
    added: str | None = None  # to a bias, times scale
    frozen: str | None = None  # a copy of W, which may have been rounded
    whole: str | None = None  # takes the place of W
    tokens: str | None = None  # take the place of the rows ``indices``
    indices: tuple[int, ...] = ()

    @property
    def is_product(self) -> bool:
        """Whether it adds a product of two factors, and nothing else."""
        others = self.magnitude, self.added, self.frozen, self.whole, self.tokens
        return self.low is not None and all(key is None for key in others)

    @property
    def of_embedding(self) -> bool:
        return self.low is not None and "lora_embedding_" in self.low[0]


class Changes:
    """Pretrained parameter -> its `Change`, and -> the adapter's name of its module."""

    def __init__(self, pretrained: LazyMapping, file: StateDict, settings: AdapterConfig) -> None:
        """Raises ValueError for tensors that do not fit the pretrained checkpoint."""
        self._path, self._pretrained, self._file, self._settings = (
            file.path,
            pretrained,
            file,
            settings,
        )
        parts = parts_of(file.path, file.names)
        modules = {part.name for part in parts if part.kind.endswith(("A", "B"))}
        self._base_names = BaseNames(file.path, modules, pretrained.names)
        self.changes: dict[str, Change] = {}
        self.module_of: dict[str, str] = {}
        self._owner_of: dict[str, str] = {}  # and the module whose rank and scale count for it
        for part in parts:
            self._add(part)
        self._decide_sides()
        for name in self.changes:
            self._check(name)

    def _add(self, part: Part) -> None:
        """Add a tensor to what is known of its parameter."""
        of_module = part.kind in ("lora_bias", "tokens") or part.kind.startswith("lora")
        if part.kind == "lora_bias":
            weight = self._base_names.weight(part.name) or ""
            name = weight.removesuffix("weight") + "bias"
            name = name if name in self._pretrained else None
        elif of_module:
            name = self._base_names.weight(part.name)
        else:
            name = self._base_names.parameter(part.name)
        if name is None:
            raise ValueError(
                f"{self._path} holds {part.key!r}, and the pretrained checkpoint has no such "
                f"parameter: a head of its own, or tied there to another one. Give a pretrained "
                f"checkpoint that has it, or save the adapter without it."
            )
        old = self.changes.get(name, Change())
        scale = self._settings.scale_of(part.owner) * part.times
        first, second = old.low or ("", "")
        if part.kind in ("lora_A", "lora_embedding_A"):
            new = replace(old, low=(part.key, second), scale=scale)
        elif part.kind in ("lora_B", "lora_embedding_B"):
            new = replace(old, low=(first, part.key), scale=scale)
        elif part.kind == "lora_magnitude_vector":
            new = replace(old, magnitude=part.key)
        elif part.kind == "lora_bias":
            new = replace(old, added=part.key, scale=scale)
            if not self._settings.lora_bias:
                log.warning(
                    f"{self._path} holds {part.key!r}, though lora_bias is not set: it is added to "
                    f"the bias. peft leaves it out."
                )
        elif part.kind == "tokens":
            new = replace(old, tokens=part.key, indices=self._indices(part))
        else:
            new = replace(old, **{part.kind: part.key})
        self.changes[name] = new
        if of_module:
            self.module_of[name], self._owner_of[name] = part.name, part.owner

    def _indices(self, part: Part) -> tuple[int, ...]:
        known = self._settings.tokens or ()
        if isinstance(known, dict):
            known = next((i for m, i in known.items() if f".{part.name}".endswith(f".{m}")), ())
        return tuple(known)

    def _decide_sides(self) -> None:
        """Find which matrices are stored as inputs by outputs: by their shapes.

        Square ones are as the others are, if these agree, or else as the configuration says.
        """
        sides: dict[str, bool] = {}
        square: list[str] = []
        for name, change in self.changes.items():
            if change.low is None:
                continue
            if not all(change.low):
                raise ValueError(
                    f"{self._path} holds one of two factors of {name!r}. Fetch or save the adapter "
                    f"again."
                )
            a, b = (self._file.shape(key) for key in change.low)
            straight, across = [b[0], *a[1:]], [*a[1:], b[0]]
            shape = list(self._pretrained.shape(name))
            if change.of_embedding:
                sides[name] = True
            elif len(shape) == 2 and straight == across == shape:
                square.append(name)
            else:
                sides[name] = len(shape) == 2 and shape == across
        others = {side for name, side in sides.items() if not self.changes[name].of_embedding}
        side = others.pop() if len(others) == 1 else self._settings.transposed
        for name, transposed in (sides | dict.fromkeys(square, side)).items():
            self.changes[name] = replace(self.changes[name], transposed=transposed)

    def _check(self, name: str) -> None:
        """Raise ValueError unless the tensors fit the parameter that they change."""
        change, shape = self.changes[name], list(self._pretrained.shape(name))
        if not (dtype := self._pretrained.dtype(name)).is_floating_point:
            raise ValueError(
                f"{self._path} changes {name!r}, which is {dtype} in the pretrained checkpoint. Is "
                f"that one quantized? Give it in full or half precision."
            )
        if change.low:
            self._check_factors(name, change, shape)
        for key in (change.frozen, change.whole, change.added):
            if key and (found := list(self._file.shape(key))) != shape:
                raise ValueError(
                    f"{self._path} holds {key!r} of shape {tuple(found)}, and {name!r} of the "
                    f"pretrained checkpoint is {tuple(shape)}. Does one of them have more tokens "
                    f"or classes? Give the checkpoint that the adapter was trained on."
                )
        if change.tokens:
            found = list(self._file.shape(change.tokens))
            fits = found == [len(change.indices), *shape[1:]]
            if not fits or max(change.indices, default=0) >= shape[0]:
                raise ValueError(
                    f"{self._path} holds {change.tokens!r} of shape {tuple(found)} for "
                    f"{len(change.indices)} trainable_token_indices of {name!r}, which is "
                    f"{tuple(shape)}. Give the checkpoint that the adapter was trained on."
                )

    def _check_factors(self, name: str, change: Change, shape: list[int]) -> None:
        a, b = (list(self._file.shape(key)) for key in change.low)
        sides = [b[0], *a[1:]] if not change.transposed else [*a[1:], b[0]]
        rank = self._settings.rank_of(self._owner_of[name])
        if change.of_embedding:
            sides = [a[1], b[0]] if len(a) == len(b) == 2 else []
        conv = len(shape) > 2 and b[2:] == [1] * (len(shape) - 2)
        fits = sides == shape and a[0] == b[1] and (len(b) == 2 or conv)
        if not fits:
            raise ValueError(
                f"{self._path} holds factors of {name!r} of shapes {tuple(a)} and {tuple(b)}, "
                f"which do not make a matrix of {tuple(shape)}. Give the pretrained checkpoint "
                f"that the adapter was trained on."
            )
        if change.magnitude and (len(shape) != 2 or change.of_embedding):
            raise ValueError(
                f"{self._path} is a DoRA adapter of {name!r}, which is no linear layer: not read. "
                f"Merge it into its model with peft (merge_and_unload, save_pretrained)."
            )
        if bool(change.magnitude) != self._settings.dora:
            verb = "lacks" if self._settings.dora else "holds"
            raise ValueError(
                f"{self._path} {verb} a lora_magnitude_vector "
                f"of {name!r}, and its {CONFIG_FILE} says use_dora={self._settings.dora}. They are "
                f"not of one adapter: save it again."
            )
        if rank != a[0]:
            raise ValueError(
                f"{self._path} has factors of {name!r} of rank {a[0]}, and its {CONFIG_FILE} says "
                f"{rank}, by which it is scaled. They are not of one adapter: save it again."
            )
