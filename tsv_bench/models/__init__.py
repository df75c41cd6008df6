"""Pretrained networks: image towers, and zero-shot heads from their text towers."""

from .backbone import Backbone, build_mini, load_mini, normalize, save_mini
from .class_token import class_token_only
from .clip import clip_needs, load_clip
from .head import zero_shot_head, zero_shot_heads

__all__ = [
    "Backbone",
    "build_mini",
    "class_token_only",
    "clip_needs",
    "load_clip",
    "load_mini",
    "normalize",
    "save_mini",
    "zero_shot_head",
    "zero_shot_heads",
]
