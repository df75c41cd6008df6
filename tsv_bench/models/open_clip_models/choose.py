"""An architecture of open_clip and weights for it, found by name before anything is built."""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsv_bench import hub
from tsv_bench.models.open_clip_models.preprocessing import CONFIG, check_names
from tsv_bench.models.quick_import import open_clip
from tsv_bench.state_dicts.state_dict import SUFFIXES
from tsv_bench.wording.spelling import nearest

TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "*.model", "vocab.txt", "config.json")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """An architecture and weights for it, found and not yet read."""

    name: str
    architecture: str
    settings: dict[str, Any]  # of the architecture, as open_clip has them
    tag: str | None  # open_clip's name for the weights; None: a repository or the user's own
    place: Path | hub.Need
    tokenizer: hub.Need | None  # None: open_clip has it, or it lies beside the weights
    preprocessing: Mapping[str, Any]  # what the user has chosen

    @property
    def path(self) -> Path:
        """The file or folder with the weights. Raises OSError if they are still to be fetched."""
        return hub.require(self.place) if isinstance(self.place, hub.Need) else self.place

    @property
    def tokenizer_folder(self) -> Path:
        """The folder with a tokenizer of transformers. Raises OSError as `path` does."""
        return hub.require(self.tokenizer) if self.tokenizer else beside(self.path)


def open_clip_needs(
    *,
    name: str,
    label: str,
    architecture: str,
    pretrained: str,
    revision: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> list[hub.Need]:
    """Return what `load_open_clip` needs from the hub with these arguments.

    Raises ValueError if they name no backbone.
    """
    chosen = choose(name, architecture, pretrained, revision, preprocessing)
    return [need for need in (chosen.place, chosen.tokenizer) if isinstance(need, hub.Need)]


def choose(
    name: str,
    architecture: str,
    pretrained: str,
    revision: str | None,
    preprocessing: Mapping[str, Any] | None,
) -> Chosen:
    """Find an architecture and weights for it; nothing is built or read.

    Raises ValueError if there is none of that name, or if the architecture cannot be a backbone.
    """
    settings = settings_of(architecture)
    preprocessing = dict(preprocessing or {})
    check_names(preprocessing)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    tag, path = None, Path(pretrained).expanduser()
    weights = open_clip.constants.HF_SAFE_WEIGHTS_NAME
    place: Path | hub.Need = path
    if pretrained in tags:
        tag, found = pretrained, open_clip.get_pretrained_cfg(architecture, pretrained)
        repo, _, file = found["hf_hub"].rpartition("/")
        # open_clip only warns where a tag's activation is not the architecture's.
        settings["quick_gelu"] = bool(settings.get("quick_gelu") or found.get("quick_gelu"))
        place = _need(f"weights of {name}", repo, (file or weights,), revision)
    elif path.exists() or path.suffix in SUFFIXES:
        place = path
    elif re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", pretrained):
        place = _need(f"weights of {name}", pretrained, (weights, CONFIG), revision)
    else:
        raise ValueError(
            f"backbone.load.pretrained={pretrained!r} is neither a file or folder here, nor a "
            f"repository of the hub, nor weights that open_clip {open_clip.__version__} knows for "
            f"{architecture}{nearest(pretrained, tags)} It knows {', '.join(tags) or 'none'}."
        )
    return Chosen(
        name=name,
        architecture=architecture,
        settings=settings,
        tag=tag,
        place=place,
        tokenizer=_tokenizer(name, settings, place),
        preprocessing=preprocessing,
    )


def settings_of(architecture: str) -> dict[str, Any]:
    """Return open_clip's settings of an architecture.

    Raises ValueError if it has none of that name, or one that cannot be a backbone.
    """
    known = open_clip.list_models()
    if architecture not in known:
        raise ValueError(
            f"unknown architecture {architecture!r}: open_clip {open_clip.__version__} has none of "
            f"that name{nearest(architecture, known)}"
        )
    settings = open_clip.get_model_config(architecture)
    odd = None
    if "multimodal_cfg" in settings:
        odd = "it also writes captions (CoCa)"
    elif "hf_model_name" in settings["text_cfg"]:
        odd = "its text tower is one of transformers"
    elif isinstance(settings["vision_cfg"].get("layers"), list) or "Mobile" in architecture:
        # Others are found when they are built.
        odd = "its image tower has batch normalization, and statistics are no weights"
    if odd:
        raise ValueError(
            f"architecture {architecture!r} cannot be a backbone here: {odd}. Choose a ViT, a "
            f"ConvNeXt, an EVA or a SigLIP, as ViT-B-32, convnext_base, EVA02-B-16 or "
            f"ViT-B-16-SigLIP."
        )
    return settings


def beside(path: Path) -> Path:
    """Return the folder of the weights."""
    return path if path.is_dir() else path.parent


def _need(what: str, repo: str, patterns: tuple[str, ...], revision: str | None) -> hub.Need:
    return hub.Need(what=what, repo=repo, kind="model", patterns=patterns, revision=revision)


def _tokenizer(name: str, settings: Mapping, place: Path | hub.Need) -> hub.Need | None:
    """Return what must be fetched to make tokens of prompts.

    Raises ValueError if that takes a package that is not installed.
    """
    repo = settings["text_cfg"].get("hf_tokenizer_name")
    if not repo:
        return None
    if importlib.util.find_spec("transformers") is None:
        raise ValueError(
            f"the tokenizer of {name} is one of transformers, which is not installed. Install it "
            f"with: pip install tsv_bench[language]"
        )
    if (
        isinstance(place, Path)
        and ((place if place.is_dir() else place.parent) / TOKENIZER).is_file()
    ):
        return None
    return _need(f"tokenizer of {name}", repo, TOKENIZER_FILES, None)
