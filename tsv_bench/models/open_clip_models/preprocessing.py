"""How weights of open_clip want images: the size fitted how, and normalized by what."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tsv_bench.models.quick_import import open_clip
from tsv_bench.wording.spelling import nearest

CONFIG = "open_clip_config.json"  # in the folders that open_clip writes, beside the weights
CHOICES = {"interpolation": ("bicubic", "bilinear"), "resize_mode": ("shortest", "squash")}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the input of an image tower, in the words of open_clip."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = tuple(getattr(self, name))
            if len(values) != 3 or not all(isinstance(v, int | float) for v in values):
                raise ValueError(
                    f"backbone.load.preprocessing.{name}={list(values)} is not three numbers, for "
                    f"red, green and blue."
                )
            object.__setattr__(self, name, values)
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"backbone.load.preprocessing.{name}={getattr(self, name)!r} is not one of "
                    f"{', '.join(known)}."
                )


NAMES = [field.name for field in fields(Preprocessing)]


def check_names(preprocessing: Mapping[str, Any]) -> None:
    """Raise ValueError for the first thing that the user sets and `Preprocessing` has not."""
    if odd := set(preprocessing) - set(NAMES):
        raise ValueError(
            f"unknown key {min(odd)!r} in backbone.load.preprocessing{nearest(min(odd), NAMES)} "
            f"There are: {', '.join(NAMES)}."
        )


def prepare(
    architecture: str, tag: str | None, beside: Mapping[str, Any], chosen: Mapping[str, Any]
) -> tuple[Preprocessing, str]:
    """Return how images are prepared, and who says so.

    In this order: the user, the file beside the weights, open_clip for the tag, or for all tags of
    the architecture if they agree, and else OpenAI.
    """
    default = {
        "mean": open_clip.OPENAI_DATASET_MEAN,
        "std": open_clip.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    why = "as OpenAI's; backbone.load.preprocessing= names another"
    of_tags = [
        {name: open_clip.get_pretrained_cfg(architecture, found)[name] for name in NAMES}
        for found in ([tag] if tag else open_clip.list_pretrained_tags_by_model(architecture))
    ]
    if of_tags and all(other == of_tags[0] for other in of_tags):
        default, why = of_tags[0], "as open_clip says"
    if beside:
        default, why = default | {n: beside[n] for n in NAMES if n in beside}, f"as {CONFIG} says"
    if chosen:
        default, why = default | dict(chosen), "as backbone.load.preprocessing says"
    return Preprocessing(**default), why


def config_beside(path: Path) -> dict[str, Any]:
    """Return what open_clip wrote into the folder of the weights, or {}.

    Raises ValueError if that is damaged.
    """
    file = path / CONFIG
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {key: dict(found[key]) for key in ("model_cfg", "preprocess_cfg") if key in found}
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{file} is not what open_clip writes ({error}). Copy it again, or remove it."
        ) from error
