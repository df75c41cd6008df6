"""The one policy about which layers a method decomposes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor

# Two-dimensional, yet not maps between activations: tables with a row for each token or position,
# and output heads. Names as in CLIP and in language models on Hugging Face.
EMBEDDINGS_AND_HEADS = (
    "token_embedding",  # CLIP; its text tower is frozen in the paper, so its delta is zero there
    "embed_tokens",  # Llama, Mistral, Qwen, Gemma, OPT
    "embed_positions",
    "tok_embeddings",
    "wte",  # GPT-2
    "wpe",
    "embed_in",  # GPT-NeoX
    "embed_out",
    "embed_tokens_per_layer",
    "word_embeddings",  # BERT, Bloom, Falcon
    "word_embedding",
    "position_embeddings",
    "token_type_embeddings",
    "relative_attention_bias",  # T5
    "shared",
    "lm_head",
    "output_layer",
    "classifier",  # a task's own head, as is the next
    "score",
    "output.weight",
)
# The TSV paper's TSV-M averages text_projection, its TSV-C compresses it. It decomposes the image
# tower's positional_embedding and proj, and so do we.
NOT_MERGED = (*EMBEDDINGS_AND_HEADS, "text_projection")

# Three projections in one parameter, one after the other. In query_key_value they alternate.
FUSED = ("in_proj_weight", "qkv", "qkv_proj", "c_attn")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a pattern (with * and ?) fits the parameter's name or one of its parts."""
    parts = {name, *name.split(".")}
    return any(fnmatchcase(part, pattern) for pattern in patterns for part in parts)


@dataclass(frozen=True)
class Matrices:
    """Which parameters are matrices: all two-dimensional ones that no pattern excludes.

    With ``split_qkv`` a fused projection (one side three times the other) counts as three. Raises
    ValueError for an ``exclude`` that is no list of patterns, a ``split_qkv`` that is no bool.
    """

    exclude: Sequence[str] = NOT_MERGED
    split_qkv: bool = False

    @classmethod
    def of(
        cls,
        exclude: Sequence[str] | None,
        split_qkv: bool,
        default: Sequence[str] = NOT_MERGED,
    ) -> "Matrices":
        """Return the matrices that a method's knobs name; ``exclude`` None is ``default``."""
        return cls(default if exclude is None else exclude, split_qkv)

    def __post_init__(self) -> None:
        exclude = self.exclude
        listed = isinstance(exclude, Sequence) and not isinstance(exclude, str)
        if not listed or not all(isinstance(pattern, str) for pattern in exclude):
            raise ValueError(
                f"exclude={exclude!r} is not a list of patterns of parameter names, such as "
                f"['lm_head', 'visual.*.proj']."
            )
        if not isinstance(self.split_qkv, bool):
            raise ValueError(f"split_qkv={self.split_qkv!r} is neither true nor false.")

    def is_matrix(self, name: str, shape: Sequence[int]) -> bool:
        """Return whether a parameter of this name and shape is decomposed."""
        return len(shape) == 2 and 0 not in shape and not matches(name, self.exclude)

    def fused_side(self, name: str, shape: Sequence[int]) -> int | None:
        """Return the axis, 0 or 1, along which a layer holds three matrices; None: it holds one."""
        if not self.split_qkv or not matches(name, FUSED):
            return None
        m, n = shape
        return 0 if m == 3 * n else 1 if n == 3 * m else None

    def split(self, name: str, deltas: Float[Tensor, "... m n"]) -> Float[Tensor, "... p q r"]:
        """Return the layer's matrices: three of a fused projection, else one."""
        side = self.fused_side(name, deltas.shape[-2:])
        if side is None:
            return deltas.unsqueeze(-3)
        if side == 0:
            return deltas.unflatten(-2, (3, -1))
        return deltas.unflatten(-1, (3, -1)).movedim(-2, -3)

    def split_factors(
        self, name: str, left: Float[Tensor, "m r"], right: Float[Tensor, "r n"]
    ) -> tuple[Float[Tensor, "p q r"], Float[Tensor, "p r s"]]:
        """Return the factors of each of the layer's matrices, given those of the layer."""
        side = self.fused_side(name, (len(left), right.shape[1]))
        if side is None:
            return left[None], right[None]
        if side == 0:
            return left.unflatten(0, (3, -1)), right.expand(3, *right.shape)
        return left.expand(3, *left.shape), right.unflatten(1, (3, -1)).movedim(1, 0)

    def join(self, name: str, shape: Sequence[int], parts: Sequence[Tensor]) -> Tensor:
        """Return the layer of ``shape`` that these matrices make up: the inverse of `split`."""
        side = self.fused_side(name, shape)
        if side is None:
            return parts[0].contiguous()
        return torch.cat(tuple(parts), dim=side)
