"""Fine-tuned image towers of any common naming, read under the names of the backbone.

The naming of a file is recognized by its parameters:
- "visual": of open_clip's ``visual.state_dict()``, and of our own files: conv1.weight
- "open_clip": of a whole CLIP of open_clip or OpenAI: visual.conv1.weight, and the text tower
- "paper": of the image encoder in the paper's code: model.visual.conv1.weight, and parts of the
  text tower
- "clip_model": of a classifier around the paper's encoder: clip_model.model.visual.conv1.weight
- "hugging_face": of transformers' CLIPVisionModel, alone or in a CLIPModel:
  vision_model.embeddings.patch_embedding.weight, since transformers 5 also without
  ``vision_model.``; the projections q, k and v are separate parameters
- "compressed": our own files of tsv-merge write=compressed
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from tsv_bench.state_dicts.adapters.inputs import check_no_adapter
from tsv_bench.state_dicts.entries.views import unwrapped
from tsv_bench.state_dicts.low_rank import is_compressed
from tsv_bench.state_dicts.masked import is_masked
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.lazy import LazyMapping, as_lazy, widest

log = logging.getLogger(__name__)

VISION = "vision_model."
PROJECTION = "visual_projection.weight"
# Naming -> the prefix of the image tower's names.
PREFIXES = {
    "visual": "",
    "open_clip": "visual.",
    "paper": "model.visual.",
    "clip_model": "clip_model.model.visual.",
}
# What a file may hold beside the image tower: the text tower, and settings of the architecture.
TEXT = re.compile(
    r"(clip_model\.)?(model\.)?(text\.)?(transformer\.|token_embedding\.|"
    r"positional_embedding$|ln_final\.|text_projection|logit_scale$|logit_bias$|attn_mask$|input_resolution$|context_length$|"
    r"vocab_size$)"
)
HUGGING_FACE_TEXT = re.compile(
    r"text_model\.|text_projection\.|logit_scale$|(vision_model\.)?embeddings\.position_ids$"
)
# Names of the backbone -> of transformers.
HUGGING_FACE = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre": "pre_layrnorm",  # misspelt there
    "ln_post": "post_layernorm",
}
HUGGING_FACE_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
# (width, pixels along a patch's side, blocks, positions) -> the paper's backbone.
KNOWN = {
    (768, 32, 12, 50): "ViT-B/32",
    (768, 16, 12, 197): "ViT-B/16",
    (1024, 14, 24, 257): "ViT-L/14",
}


class Place(NamedTuple):
    """The name of a parameter in a file, or several names whose rows make it, in this order."""

    parts: tuple[str, ...]
    transposed: bool = False


class ImageTower(LazyMapping):
    """An image tower in a file of another naming, under the backbone's names; read on access.

    It offers what `StateDict` does. A parameter without a place in the file is the pretrained one.
    """

    def __init__(
        self,
        state: StateDict,
        places: Mapping[str, Place | None],
        pretrained: LazyMapping,
    ) -> None:
        self.path, self.files, self.metadata = state.path, state.files, state.metadata
        self._state, self._places, self._pretrained = state, dict(places), pretrained
        # None: what is read here of a file is only part of its data and in another order.
        self.headers = dict.fromkeys(state.headers)
        self.stamps = state.stamps
        self.shards: dict[str, list[str]] = {shard: [] for shard in state.shards}
        shard_of = {name: shard for shard, names in state.shards.items() for name in names}
        for name, place in places.items():
            if place:
                self.shards[shard_of[place.parts[0]]].append(name)

    @property
    def places(self) -> Mapping[str, Place | None]:
        """Name of the backbone -> where the file has the parameter; None: it has not."""
        return self._places

    @property
    def names(self) -> Collection[str]:
        return self._places.keys()

    def shape(self, name: str) -> torch.Size:
        return self._pretrained.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        place = self._places[name]
        if place is None:
            return self._pretrained.dtype(name)
        dtypes = {self._state.dtype(part) for part in place.parts}
        return dtypes.pop() if len(dtypes) == 1 else widest(dtypes)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read ``self[name][start:stop]``, only these rows unless the file has it transposed."""
        place = self._places[name]
        if place is None:
            return self._pretrained.rows(name, start, stop).clone()
        if place.transposed:
            return self._state[place.parts[0]].T[start:stop].contiguous()
        if len(place.parts) == 1:
            return self._state.rows(place.parts[0], start, stop)
        start, stop, _ = slice(start, stop).indices(self.shape(name)[0])
        pieces = []
        for part in place.parts:
            pieces.append(self._state.rows(part, max(start, 0), max(stop, 0)))
            num_rows = self._state.shape(part)[0]
            start, stop = start - num_rows, stop - num_rows
        return torch.cat(pieces)


def image_tower(state: StateDict, pretrained: Mapping[str, Tensor]) -> StateDict | ImageTower:
    """Return the file's image tower under the names of ``pretrained``; no tensor is read.

    It is ``state`` itself if that has these names or is one of our compressed files. Names as of
    modules that were wrapped for training are read without ``module`` and ``_orig_mod``. Raises
    ValueError if the naming is unknown, if parameters or shapes are not the backbone's, or if it is
    an adapter.
    """
    check_no_adapter(state)
    pretrained, state = as_lazy(pretrained), unwrapped(state)
    naming = naming_of(state, pretrained)
    if naming == "compressed":
        return state
    prefix = VISION if naming == "hugging_face" and starts(state, VISION) else PREFIXES.get(naming)
    places: dict[str, Place | None] = {
        name: place_of(name, naming, prefix or "") for name in pretrained
    }
    if naming == "hugging_face" and "proj" in places and PROJECTION not in state:
        log_frozen_projection()
        places["proj"] = None
    check_names(state, naming, places)
    check_shapes(state, places, pretrained)
    return state if naming == "visual" else ImageTower(state, places, pretrained)


def naming_of(state: StateDict, pretrained: Mapping[str, Tensor]) -> str:
    """Return which of the namings above a file has. Raises ValueError if it has none of them."""
    if is_compressed(state) or is_masked(state):
        return "compressed"
    for naming in ("clip_model", "paper", "open_clip"):
        if starts(state, PREFIXES[naming]):
            return naming
    if starts(state, VISION) or starts(state, "embeddings."):
        return "hugging_face"
    if any(name in pretrained for name in state):
        return "visual"
    name = next(iter(pretrained))
    raise ValueError(
        f"{state.path} has different parameters than the backbone, under no known naming: its "
        f"first are {_first(state)}. Expected are {name!r} and so on; 'visual.{name}' or "
        f"'model.visual.{name}', as in state dicts of a whole CLIP; or '{VISION}embeddings...', as "
        f"Hugging Face has it. Rename them."
    )


def starts(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def place_of(name: str, naming: str, prefix: str) -> Place:
    """Return where a file of this naming has the backbone's parameter ``name``."""
    if naming != "hugging_face":
        return Place((prefix + name,))
    if name == "proj":
        return Place((PROJECTION,), transposed=True)
    module, _, kind = name.rpartition(".")
    if block := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", module):
        number, module = block.groups()
        prefix += f"encoder.layers.{number}."
        if kind.startswith("in_proj_"):
            kind = kind.removeprefix("in_proj_")
            return Place(tuple(f"{prefix}self_attn.{part}_proj.{kind}" for part in "qkv"))
        return Place((f"{prefix}{HUGGING_FACE_BLOCK.get(module, module)}.{kind}",))
    if name in HUGGING_FACE:
        return Place((prefix + HUGGING_FACE[name],))
    return Place((f"{prefix}{HUGGING_FACE.get(module, module)}.{kind}",))


def check_names(state: StateDict, naming: str, places: Mapping[str, Place | None]) -> None:
    """Raise ValueError unless the file has all of the image tower and nothing unknown."""
    expected = [part for place in places.values() if place for part in place.parts]
    beside = {"visual": None, "hugging_face": HUGGING_FACE_TEXT}.get(naming, TEXT)
    lacking = [name for name in expected if name not in state]
    unknown = set(state).difference(expected)
    odd = [name for name in state if name in unknown and not (beside and beside.match(name))]
    if not lacking and not odd:
        return
    found = [f"it lacks {_first(lacking)}"] * bool(lacking)
    found += [f"it holds {_first(odd)}, which the backbone has not"] * bool(odd)
    head = "" if lacking else "A head is left out: heads are made of class names. "
    raise ValueError(
        f"{state.path}, in the naming {naming!r}, has different parameters than the backbone: "
        f"{' and '.join(found)}. {head}{guess(state, places)}Were both written by the same "
        f"backbone?"
    )


def check_shapes(
    state: StateDict, places: Mapping[str, Place | None], pretrained: LazyMapping
) -> None:
    """Raise ValueError unless every parameter, or its parts together, has the backbone's shape."""
    odd = []
    for name, place in places.items():
        if place is None:
            continue
        expected = pretrained.shape(name)
        if place.transposed:
            expected = expected[::-1]
        elif len(place.parts) > 1:
            expected = torch.Size([expected[0] // len(place.parts), *expected[1:]])
        found = {part: state.shape(part) for part in place.parts}
        odd += [(part, expected, shape) for part, shape in found.items() if shape != expected]
    if odd:
        name, expected, found = odd[0]
        raise ValueError(
            f"{state.path} has different shapes than the backbone: {name!r} is {tuple(expected)} "
            f"in the pretrained and {tuple(found)} in the fine-tuned one ({len(odd)} such). "
            f"{guess(state, places)}Were both written by the same backbone?"
        )


def guess(state: StateDict, places: Mapping[str, Place | None]) -> str:
    """Return a sentence on whose weights the file seems to hold; "" if its shapes do not tell."""
    found = [places.get(name) for name in ("conv1.weight", "positional_embedding")]
    if not all(place and place.parts[0] in state for place in found):
        return ""
    conv1, positions = (state.shape(place.parts[0]) for place in found)
    if len(conv1) != 4:
        return ""
    prefix = found[0].parts[0]
    for name in ("conv1.weight", HUGGING_FACE["conv1.weight"]):
        prefix = prefix.removesuffix(name)
    block = re.compile(re.escape(prefix) + r"(transformer\.resblocks|encoder\.layers)\.(\d+)\.")
    blocks = {match[2] for name in state if (match := block.match(name))}
    numbers = conv1[0], conv1[2], len(blocks), positions[0]
    whose = f"those of {KNOWN[numbers]}" if numbers in KNOWN else "none of the paper's backbones"
    return (
        f"Its shapes are {whose} (width {numbers[0]}, patches of {numbers[1]} x {numbers[1]}, "
        f"{numbers[2]} blocks, {numbers[3]} positions). "
    )


def _first(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(name) for name in names[:3]) + more


@cache
def log_frozen_projection() -> None:
    """Log, once a process, that the pretrained projection is used."""
    log.info(
        f"checkpoints in Hugging Face's naming without {PROJECTION}: it was frozen in their "
        f"training. The pretrained proj is used, whose delta is zero."
    )
