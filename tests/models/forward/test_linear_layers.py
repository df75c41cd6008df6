"""Blocks that ask a function for what linear layers compute: the same network if it multiplies."""

import open_clip
import pytest
import torch
import torch.nn.functional as F
from made_up.backbones import PLAIN, SMALL, clip
from made_up.open_clip_models import ARCHITECTURES
from torch.func import functional_call

from tsv_bench.models.forward.linear_layers import BLOCKS, embed, features_by
from tsv_bench.models.open_clip_models.load import build


def multiply(name, x, weight, bias):
    return F.linear(x, weight, bias)


def scaled_tower():
    """A tower whose blocks scale what they add (LayerScale), as some of open_clip's do."""
    config = open_clip.get_model_config(SMALL)
    vision = {**config["vision_cfg"], "ls_init_value": 0.5}
    torch.manual_seed(1)
    return open_clip.CLIP(**{**config, "vision_cfg": vision}).visual.eval()


@pytest.mark.parametrize(
    "make",
    [lambda: clip(SMALL).visual, lambda: clip(PLAIN).visual, scaled_tower],
    ids=["quick_gelu", "gelu", "layer_scale"],
)
def test_with_their_own_products_features_are_those_of_the_tower(make):
    visual = make()
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: (p + 0.1 * torch.randn(p.shape, generator=generator)).detach().requires_grad_(True)
        for name, p in visual.named_parameters()
    }
    images = torch.randn(3, 3, 32, 32, generator=generator)
    found = features_by(visual, weights, images, multiply)
    expected = functional_call(visual, weights, (images,))
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected.square().sum(), list(weights.values()))
    got = torch.autograd.grad(found.square().sum(), list(weights.values()))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)


def test_each_block_asks_for_four_layers_in_the_order_of_the_network():
    visual, asked = clip(SMALL).visual, []

    def noted(name, x, weight, bias):
        asked.append((name, tuple(x.shape), tuple(weight.shape), tuple(bias.shape)))
        return multiply(name, x, weight, bias)

    features_by(visual, dict(visual.named_parameters()), torch.zeros(2, 3, 32, 32), noted)
    width, tokens = 32, 17
    sizes = {
        "attn.in_proj_weight": (width, 3 * width),
        "attn.out_proj.weight": (width, width),
        "mlp.c_fc.weight": (width, 4 * width),
        "mlp.c_proj.weight": (4 * width, width),
    }
    assert asked == [
        (f"{BLOCKS}.{block}.{name}", (2, tokens, n), (m, n), (m,))
        for block in range(2)
        for name, (n, m) in sizes.items()
    ]


def test_blocks_of_another_kind_are_named():
    visual = clip(SMALL).visual
    visual.transformer.resblocks[1].attn = torch.nn.Identity()
    with pytest.raises(ValueError, match="a ResidualAttentionBlock with Identity: its linear"):
        features_by(visual, dict(visual.named_parameters()), torch.zeros(1, 3, 32, 32), multiply)


@pytest.mark.parametrize("run", [embed, lambda *given: features_by(*given, multiply)])
def test_a_tower_without_blocks_is_refused(run):
    visual = build(ARCHITECTURES["tiny-convnext"], "meta").visual
    message = "block by block, and the backbone's is a TimmModel. Choose a ViT of open_clip's own"
    with pytest.raises(ValueError, match=message):
        run(visual, {}, torch.empty(1, 3, 160, 160, device="meta"))
