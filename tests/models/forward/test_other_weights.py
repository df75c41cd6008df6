"""A tower is run with weights on another device, and what it computes itself goes along."""

import torch
from made_up import open_clip_models
from made_up.open_clip_models import ARCHITECTURES

from tsv_bench.models.forward.other_weights import features_with
from tsv_bench.models.open_clip_models.load import build


def test_rotary_positions_go_where_the_weights_are():
    visual = build(ARCHITECTURES["tiny-eva"], "cpu").visual.eval()
    computed = {name for name, _ in visual.named_buffers()}
    assert computed and not computed & set(visual.state_dict())
    weights = {name: tensor.to("meta") for name, tensor in visual.state_dict().items()}
    found = features_with(visual, weights, torch.empty(2, 3, 224, 224, device="meta"))
    assert found.is_meta and found.shape == (2, 24)
    assert not any(buffer.is_meta for buffer in visual.buffers())


def test_the_weights_given_count():
    visual = open_clip_models.model("tiny-vit").visual
    images = torch.randn(2, 3, 32, 32)
    weights = {name: 2 * tensor for name, tensor in visual.state_dict().items()}
    found = features_with(visual, weights, images)
    assert not torch.equal(found, visual(images))
    visual.load_state_dict(weights)
    assert torch.equal(found, visual(images))
