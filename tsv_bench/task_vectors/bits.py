"""Pack masks into bits, eight entries a byte."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from tsv_bench.task_vectors.lazy import LazyMapping


def pack_bits(kept: Bool[Tensor, "tasks entries"]) -> UInt8[Tensor, "tasks bytes"]:
    """Return eight entries a byte, the first in the lowest bit; zeros fill up the last byte."""
    lacking = -kept.shape[1] % 8
    if lacking:
        kept = torch.cat([kept, kept.new_zeros(len(kept), lacking)], dim=1)
    eights = kept.view(torch.uint8).unflatten(1, (-1, 8))
    packed = eights[..., 0].clone()
    for place in range(1, 8):  # a sum over the last axis is several times slower
        packed |= eights[..., place] << place
    return packed


def unpack_bits(packed: UInt8[Tensor, " bytes"], num_entries: int) -> Bool[Tensor, " entries"]:
    """Return the first ``num_entries`` of one task's mask from its bits, as `pack_bits` packs."""
    kept = torch.empty(len(packed), 8, dtype=torch.bool, device=packed.device)
    for place in range(8):
        kept[:, place] = (packed >> place) & 1
    return kept.flatten()[:num_entries]


def num_mask_bytes(vector: LazyMapping, names: Sequence[str]) -> int:
    """Return the number of bytes that one task's mask of these layers takes as bits."""
    return sum(-(-vector.shape(name).numel() // 8) for name in names)
