"""Inputs of linear layers: sums equal to those of what every layer was given."""

import open_clip
import pytest
import torch
from torch import nn

from tsv_bench.models import build_mini, normalize
from tsv_bench.observation.gather import linear_inputs
from tsv_bench.observation.linear_inputs import LinearInputs, visible_products

BACKBONES = {
    "mini": lambda: build_mini("mini", 9).visual,
    "vit_b32": lambda: open_clip.model._build_vision_tower(**tower("ViT-B-32-quickgelu")),
    "vit_b16": lambda: open_clip.model._build_vision_tower(**tower("ViT-B-16-quickgelu")),
    "vit_l14": lambda: open_clip.model._build_vision_tower(**tower("ViT-L-14-quickgelu")),
}


def tower(architecture):
    """The paper's architecture, of images of 16 patches, with one block: the others repeat it."""
    settings = open_clip.get_model_config(architecture)
    vision = settings["vision_cfg"] | {"layers": 1}
    vision["image_size"] = 4 * vision["patch_size"]
    return {"embed_dim": settings["embed_dim"], "vision_cfg": vision, "quick_gelu": True}


def captured(visual, images):
    """Layer -> all that it was given, [tokens, width]: by hooks, and by hand for attention."""
    found = {}

    def keep(name):
        def hook(module, args):
            found[name] = args[0].flatten(0, -2)

        return hook

    for number, block in enumerate(visual.transformer.resblocks):
        at = f"transformer.resblocks.{number}"
        block.attn.register_forward_pre_hook(keep(f"{at}.attn.in_proj_weight"))
        block.mlp.c_fc.register_forward_pre_hook(keep(f"{at}.mlp.c_fc.weight"))
        block.mlp.c_proj.register_forward_pre_hook(keep(f"{at}.mlp.c_proj.weight"))

        def values(module, args, number=number, at=at):
            [x] = args[:1]
            q, k, v = nn.functional.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(
                3, -1
            )
            q, k, v = (y.unflatten(-1, (module.num_heads, -1)).transpose(-2, -3) for y in (q, k, v))
            mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
            mixed = mixed.transpose(-2, -3).flatten(-2)
            found[f"{at}.attn.out_proj.weight"] = mixed.flatten(0, -2)

        block.attn.register_forward_pre_hook(values)
    visual.ln_post.register_forward_hook(
        lambda module, args, output: found.__setitem__("proj", output)
    )
    visual(images)
    return found


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_sums_are_those_of_what_each_layer_was_given(backbone):
    torch.manual_seed(0)
    visual = BACKBONES[backbone]().eval()
    size = visual.image_size[0]
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    weights = dict(visual.named_parameters())
    found = linear_inputs(visual, weights, pixels, ("inputs", "means"), 1)
    with visible_products():
        expected = captured(visual, normalize(pixels))
    pooled = expected.pop("proj")
    expected["proj"] = (pooled if pooled.ndim == 2 else pooled[:, 0]).flatten(0, -2)
    assert set(found.gathered) == set(expected)
    assert len(expected) == 4 * len(visual.transformer.resblocks) + 1
    for name, x in expected.items():
        how = found.gathered[name]
        assert (how.count, how.axis) == (len(x), 0 if name == "proj" else 1), name
        x = x.double()
        for kind, value in (("inputs", x.mT @ x), ("means", x.mean(dim=0))):
            error = (found.statistics(kind, name).double() - value).norm() / value.norm()
            assert error < 1e-5, (name, kind)


class Layers(nn.Module):
    """Linear layers as language models have them, and weights that are no linear layer's."""

    def __init__(self):
        super().__init__()
        self.square = nn.Linear(5, 5, bias=False)
        self.conv1d = nn.Parameter(torch.randn(5, 5))  # inputs x outputs, as GPT-2 has it
        self.table = nn.Embedding(7, 5)
        self.unused = nn.Linear(5, 3)

    def forward(self, ids):
        x = self.table(ids)
        x = self.square(x.transpose(0, 1)).transpose(0, 1)  # not contiguous
        return torch.addmm(torch.zeros(5), x.flatten(0, 1), self.conv1d)


@torch.no_grad()
def test_square_matrices_are_told_from_their_transposes():
    model, ids = Layers(), torch.tensor([[0, 3, 6], [1, 1, 2]])
    with LinearInputs(dict(model.named_parameters()), ("inputs",)) as inputs:
        model(ids)
    x = model.table(ids).flatten(0, 1)
    y = model.square(x)
    assert {name: how.axis for name, how in inputs.gathered.items()} == {
        "conv1d": 0,
        "square.weight": 1,
    }
    torch.testing.assert_close(inputs.statistics("inputs", "square.weight"), x.mT @ x)
    torch.testing.assert_close(inputs.statistics("inputs", "conv1d"), y.mT @ y)


@torch.no_grad()
def test_a_matrix_with_inputs_on_both_sides_is_refused():
    weight = torch.randn(4, 4)
    with pytest.raises(ValueError, match="'w' is multiplied from both sides"):
        with LinearInputs({"w": weight}, ("inputs",)):
            torch.randn(2, 4) @ weight @ weight.T
