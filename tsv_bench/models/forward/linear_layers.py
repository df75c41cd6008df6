"""An image tower whose residual blocks ask a function for what each linear layer computes."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from tsv_bench.models.quick_import import open_clip

BLOCKS = "transformer.resblocks"

# (name of the weight, inputs [images, tokens, n], weight [m, n], bias [m]) -> [images, tokens, m]
Linear = Callable[[str, Tensor, Tensor, Tensor | None], Tensor]


def features_by(
    visual: nn.Module,
    weights: Mapping[str, Tensor],
    images: Float[Tensor, "images 3 size size"],
    linear: Linear,
) -> Float[Tensor, "images dim"]:
    """Return the features of normalized images, not normalized themselves.

    ``weights`` has the names of the tower. In each block ``linear`` computes four layers: the fused
    projection of attention, its output, and both of the MLP. Raises ValueError for blocks that are
    not open_clip's own.
    """
    check_blocks(visual)
    tokens = embed(visual, weights, images)
    for number, block in enumerate(visual.transformer.resblocks):
        tokens = _run_block(block, f"{BLOCKS}.{number}.", weights, tokens, linear)
    return read_out(visual, weights, tokens)


def blocks_of(visual: nn.Module) -> nn.ModuleList:
    """Return the residual blocks of a ViT of open_clip. Raises ValueError for another tower."""
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        raise ValueError(
            f"the method goes through the image tower block by block, and the backbone's is a "
            f"{type(visual).__name__}. Choose a ViT of open_clip's own, as backbone=vit_b32, or a "
            f"method that needs no blocks."
        )
    return blocks


def check_blocks(visual: nn.Module) -> None:
    """Raise ValueError unless the tower's blocks are those that `features_by` knows."""
    known = open_clip.transformer.ResidualAttentionBlock
    for block in blocks_of(visual):
        if (
            type(block) is not known
            or not isinstance(block.attn, nn.MultiheadAttention)
            or block.attn.in_proj_weight is None
            or not block.attn.batch_first
        ):
            raise ValueError(
                f"the backbone has a {type(block).__name__} with {type(block.attn).__name__}: its "
                f"linear layers can be replaced only in open_clip's ResidualAttentionBlock with "
                f"fused attention. Choose a ViT, as backbone=vit_b32."
            )


def embed(
    visual: nn.Module, weights: Mapping[str, Tensor], images: Tensor
) -> Float[Tensor, "images tokens width"]:
    """Return the tokens that the first block gets. Raises ValueError if there are no blocks."""
    blocks_of(visual)
    return functional_call(_Part(visual, "_embeds"), _within(weights), images)


def read_out(
    visual: nn.Module, weights: Mapping[str, Tensor], tokens: Tensor
) -> Float[Tensor, "images dim"]:
    """Return the features of the last block's tokens."""
    pooled, _ = functional_call(_Part(visual, "_pool"), _within(weights), tokens)
    return pooled if visual.proj is None else pooled @ weights["proj"]


def _run_block(
    block: nn.Module, prefix: str, weights: Mapping[str, Tensor], tokens: Tensor, linear: Linear
) -> Tensor:
    def own(name: str) -> Tensor:
        return weights[prefix + name]

    def normed(name: str, x: Tensor) -> Tensor:
        layer = getattr(block, name)
        return F.layer_norm(
            x, layer.normalized_shape, own(f"{name}.weight"), own(f"{name}.bias"), layer.eps
        )

    def layer(name: str, x: Tensor, weight: str = ".weight", bias: str = ".bias") -> Tensor:
        return linear(f"{prefix}{name}{weight}", x, own(name + weight), own(name + bias))

    def scaled(name: str, x: Tensor) -> Tensor:
        return x if isinstance(getattr(block, name), nn.Identity) else x * own(f"{name}.gamma")

    x = normed("ln_1", tokens)
    heads = block.attn.num_heads
    fused = layer("attn.in_proj", x, "_weight", "_bias").unflatten(-1, (3, heads, -1))
    query, key, value = (part.transpose(1, 2) for part in fused.unbind(2))
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    tokens = tokens + scaled("ls_1", layer("attn.out_proj", mixed))
    hidden = block.mlp.gelu(layer("mlp.c_fc", normed("ln_2", tokens)))
    return tokens + scaled("ls_2", layer("mlp.c_proj", hidden))


class _Part(nn.Module):
    """One method of an image tower as a module, to be called with other weights."""

    def __init__(self, visual: nn.Module, method: str) -> None:
        super().__init__()
        self.visual, self._method = visual, method

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.visual, self._method)(x)


def _within(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"visual.{name}": tensor for name, tensor in weights.items()}
