"""A shortcut: the last block of an image tower computes the class token alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from tsv_bench.models.quick_import import open_clip


@contextmanager
def class_token_only(visual: nn.Module) -> Iterator[None]:
    """Make the tower skip, inside this context, what its pooled class token does not need.

    After the last attention no token sees another, and only the class token is pooled. The features
    are the same up to rounding. A tower of twelve blocks saves 7% of its products, one of four
    blocks 20%. A tower that pools in another way is left as it is.
    """
    block = visual.transformer.resblocks[-1] if pools_class_token(visual) else None
    if type(block) is not open_clip.transformer.ResidualAttentionBlock:
        yield
        return
    block.forward = partial(_first_token, block)
    try:
        yield
    finally:
        del block.forward


def pools_class_token(visual: nn.Module) -> bool:
    """Return whether the tower is open_clip's ViT and its features are the class token's."""
    return (
        isinstance(visual, open_clip.transformer.VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.output_tokens
        and visual.transformer.batch_first
    )


def _first_token(
    block: nn.Module,
    x: Tensor,
    k_x: None = None,
    v_x: None = None,
    attn_mask: None = None,
) -> Tensor:
    """Return the first token of the output of an open_clip block, [batch, 1, width].

    ``x`` is the block's input, [batch, tokens, width].
    """
    assert k_x is None and v_x is None and attn_mask is None
    seen, first = block.ln_1(x), x[:, :1]
    first = first + block.ls_1(block.attention(seen[:, :1], seen, seen))
    return first + block.ls_2(block.mlp(block.ln_2(first)))
