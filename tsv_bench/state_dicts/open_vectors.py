"""Task vectors of checkpoint files, with or without a cache of their singular triplets."""

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tsv_bench.state_dicts.adapters.adapter import AdapterStateDict, AdapterTaskVector, is_adapter
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.integrity import checked_hashes
from tsv_bench.state_dicts.low_rank import (
    CompressedStateDict,
    CompressedTaskVector,
    StoredTaskVector,
    is_compressed,
)
from tsv_bench.state_dicts.masked import MaskedStateDict, is_masked
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.lazy import Triplets
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.task_vector import TaskVector


class CachedTaskVector(TaskVector):
    """A task vector whose singular triplets are kept in a factor cache."""

    def __init__(
        self,
        pretrained: Mapping[str, Tensor],
        finetuned: Mapping[str, Tensor],
        device: str,
        factors: FactorCache,
        pair: str,
    ) -> None:
        super().__init__(pretrained, finetuned, device)
        self._factors, self._pair = factors, pair

    def rank_ahead(self, full_rank: int) -> int:
        return math.ceil(full_rank * self._factors.ahead)

    def recall(self, name: str, rank: int, kind: str) -> Triplets | None:
        matrices = Matrices((), split_qkv=kind.endswith("-split"))
        shape = matrices.split(name, torch.empty(self.shape(name), device="meta")).shape
        found = self._factors.recall(self._pair, name, kind, rank, tuple(shape))
        return found and tuple(part.to(self._device) for part in found)

    def keep(self, name: str, triplets: Triplets, kind: str) -> None:
        self._factors.keep(self._pair, name, kind, triplets)


def open_task_vector(
    pretrained: Mapping[str, Tensor],
    finetuned: StateDict,
    device: str = "cpu",
    factors: FactorCache | None = None,
    pair: str = "",
) -> TaskVector:
    """Return the task vector of a checkpoint, compressed, an adapter, or whole; no delta is read.

    ``pair`` identifies both checkpoints in the cache ``factors``: `cache_key`. Raises ValueError
    or FileNotFoundError if a compressed file or an adapter does not fit its pretrained weights or
    is damaged.
    """
    if is_adapter(finetuned):
        return AdapterTaskVector(pretrained, AdapterStateDict(pretrained, finetuned), device)
    if is_compressed(finetuned):
        return CompressedTaskVector(pretrained, CompressedStateDict(pretrained, finetuned), device)
    if is_masked(finetuned):
        masked = MaskedStateDict(pretrained, finetuned)
        checked_hashes(masked.shared)  # for NaN; the file is read only for the first task
        return StoredTaskVector(pretrained, masked, device)
    if factors is None:
        return TaskVector(pretrained, finetuned, device)
    return CachedTaskVector(pretrained, finetuned, device, factors, pair)


def cache_key(*identities: str) -> str:
    """Return the name of a pair of checkpoints in the factor cache, made from their hashes."""
    return hashlib.sha256(" ".join(identities).encode()).hexdigest()[:24]
