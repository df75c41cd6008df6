"""Loading a backbone of open_clip: its image tower at once, its text tower when prompts come."""

import copy
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tsv_bench.models import clip
from tsv_bench.models.backbone import Backbone
from tsv_bench.models.open_clip_models.choose import Chosen, choose
from tsv_bench.models.open_clip_models.preprocessing import config_beside, prepare
from tsv_bench.models.quick_import import let_build_timm, open_clip
from tsv_bench.state_dicts.entries.views import View, unwrapped
from tsv_bench.state_dicts.state_dict import StateDict

log = logging.getLogger(__name__)

NO_TOWER = {"image_size": 16, "patch_size": 16, "width": 64, "layers": 1}  # beside a text tower


def load_open_clip(
    *,
    name: str,
    label: str,
    architecture: str,
    pretrained: str,
    revision: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> Backbone:
    """Load a model of open_clip. Its text tower is read when prompts are first encoded.

    ``pretrained`` is one of open_clip's tags for the architecture, a repository of the hub, or a
    file or folder with a state dict. ``preprocessing`` replaces what is known of the weights.
    Raises ValueError if these do not fit each other, OSError if the weights are not here.
    """
    chosen = choose(name, architecture, pretrained, revision, preprocessing)
    path = chosen.path
    beside = config_beside(path)
    quick_gelu = bool(beside.get("model_cfg", chosen.settings).get("quick_gelu", False))
    chosen = replace(chosen, settings={**chosen.settings, "quick_gelu": quick_gelu})
    prepared, why = prepare(
        architecture, chosen.tag, beside.get("preprocess_cfg", {}), chosen.preprocessing
    )

    whole = build(chosen.settings, "meta")
    state = renamed(clip.open_clip_file(path), whole)
    clip.check_parameters(whole, state, architecture, "pretrained")
    visual = whole.visual
    if any(buffer.is_meta for name, buffer in visual.named_buffers()):
        visual = build(chosen.settings, "cpu").visual  # it computes some, which no file holds
    visual.load_state_dict(clip.read(state, clip.VISUAL, visual.state_dict()), assign=True)
    visual.eval().requires_grad_(False)
    if chosen.tag == "openai" or "input_resolution" in state:  # as OpenAI's own files have it
        clip.check_quick_gelu(visual, architecture)
    visual.image_mean, visual.image_std = prepared.mean, prepared.std

    made_of = [clip.fingerprint(visual.state_dict()), architecture, quick_gelu, asdict(prepared)]
    found = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    log.info(
        f"{label}: {architecture} of {state.path}, {'QuickGELU' if quick_gelu else 'GELU'}, images "
        f"{prepared.resize_mode}, {prepared.interpolation}, mean "
        f"{', '.join(f'{v:.3g}' for v in prepared.mean)} ({why}), sha256 {found}"
    )
    text = TextTower(chosen)
    return Backbone(
        name=name,
        label=label,
        image_size=visual.image_size[0],
        visual=visual,
        fingerprint=found,
        logit_scale=state["logit_scale"].float().exp().item(),
        encode_text=text.encode,
        release_text=text.release,
        text_fingerprint=lambda: text.fingerprint,
        interpolation=prepared.interpolation,
        resize_mode=prepared.resize_mode,
    )


def build(settings: Mapping[str, Any], device: str) -> nn.Module:
    """Build a model with random weights, and without what is random in training.

    Raises ValueError if its image tower has batch normalization.
    """
    settings = copy.deepcopy(dict(settings))
    vision = settings["vision_cfg"]
    vision["patch_dropout"] = 0.0
    if "timm_model_name" in vision:
        let_build_timm()
        vision |= {"timm_model_pretrained": False, "timm_drop": 0.0, "timm_drop_path": None}
    kind = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = kind(**settings)
    for module in model.visual.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                "the image tower has batch normalization: statistics of images beside its weights, "
                "which no task vector has. Choose a ViT, a ConvNeXt, an EVA or a SigLIP."
            )
    return model


def renamed(state: StateDict, model: nn.Module) -> StateDict:
    """Return a state dict under the names of ``model``.

    A text tower of its own (``text.``) lies among the rest in older files.
    """
    state = unwrapped(state)
    text = [name for name in model.state_dict() if name.startswith("text.")]
    moved = {name.removeprefix("text."): name for name in text if name not in state}
    names = {moved.get(name, name): name for name in state}
    return state if all(new == old for new, old in names.items()) else View(state, names)


class TextTower:
    """A text tower that reads its weights on the first call and frees them on `release`."""

    def __init__(self, chosen: Chosen) -> None:
        self.chosen = chosen
        self._model: nn.Module | None = None

    def _load(self) -> nn.Module:
        # open_clip builds both towers together; the other is small here.
        model = build({**self.chosen.settings, "vision_cfg": NO_TOWER}, "cpu")
        del model.visual
        state = renamed(clip.open_clip_file(self.chosen.path), model)
        model.load_state_dict(clip.read(state, "", model.state_dict()), assign=True)
        return model.eval().requires_grad_(False)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of its weights, of which only one is in memory at a time."""
        state, digest = unwrapped(clip.open_clip_file(self.chosen.path)), hashlib.sha256()
        for name in sorted(state):
            if not name.startswith(clip.VISUAL) and name not in clip.LEFTOVERS:
                digest.update(clip.fingerprint({name: state[name].float()}).encode())
        return digest.hexdigest()

    @cached_property
    def _tokenize(self) -> Any:
        """What makes prompts a table of tokens [prompts, context]."""
        text = self.chosen.settings["text_cfg"]
        if "hf_tokenizer_name" not in text:
            return open_clip.get_tokenizer(self.chosen.architecture)
        return open_clip.tokenizer.HFTokenizer(
            str(self.chosen.tokenizer_folder),
            context_length=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
            tokenizer_mode=text.get("tokenizer_mode"),
            **text.get("tokenizer_kwargs", {}),
        )

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Tensor:
        """Return the features of prompts [prompts, dim], not normalized."""
        self._model = self._model or self._load()
        tokens = self._tokenize(prompts)
        return torch.cat(
            [self._model.encode_text(batch) for batch in tokens.split(clip.PROMPTS_AT_ONCE)]
        )

    def release(self) -> None:
        """Free the weights."""
        self._model = None
