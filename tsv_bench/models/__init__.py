"""Pretrained networks: image towers, and zero-shot heads from their text towers."""

from .backbone import Backbone, build_mini, load_mini, normalize, save_mini
from .head import zero_shot_head

__all__ = ["Backbone", "build_mini", "load_mini", "normalize", "save_mini", "zero_shot_head"]
