"""Zero-shot heads: a frozen linear classifier from a task's prompts (CLIP, arXiv:2103.00020)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tsv_bench.data import Task
from tsv_bench.models.backbone import Backbone

# Heads this process has built: text does not change while methods do.
_built: dict[tuple, Tensor] = {}


def zero_shot_head(backbone: Backbone, task: Task) -> Tensor:
    """Weights [classes, dim]: per class the mean of its normalized prompts, normalized, scaled.

    Normalized image features times these are the logits (logit scale included).
    """
    key = (backbone.fingerprint, task.class_names, task.templates)
    if key not in _built:
        _built[key] = build_head(backbone, task)
    return _built[key]


@torch.no_grad()
def build_head(backbone: Backbone, task: Task) -> Tensor:
    prompts = [prompt for of_class in task.prompts for prompt in of_class]
    texts = F.normalize(backbone.encode_text(prompts), dim=-1)
    classes = texts.view(len(task.class_names), len(task.templates), -1).mean(dim=1)
    return backbone.logit_scale * F.normalize(classes, dim=-1)
