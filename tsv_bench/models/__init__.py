"""Networks: pretrained backbones, zero-shot heads, training, and accuracies."""

from tsv_bench.models.backbone import Backbone, normalize
from tsv_bench.models.clip import clip_needs, load_clip
from tsv_bench.models.forward.class_token import class_token_only
from tsv_bench.models.head import zero_shot_head, zero_shot_heads
from tsv_bench.models.mini import build_mini, load_mini, save_mini
from tsv_bench.models.open_clip_models.choose import open_clip_needs
from tsv_bench.models.open_clip_models.load import load_open_clip

__all__ = [
    "Backbone",
    "build_mini",
    "class_token_only",
    "clip_needs",
    "load_clip",
    "load_mini",
    "load_open_clip",
    "normalize",
    "open_clip_needs",
    "save_mini",
    "zero_shot_head",
    "zero_shot_heads",
]
