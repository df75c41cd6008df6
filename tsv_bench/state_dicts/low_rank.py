"""TSV-C as files: low-rank factors of the compressed layers, and the other changed parameters.

A safetensors file holds ``<layer>.u`` [m, k], ``<layer>.s`` [k] and ``<layer>.vh`` [k, n] of every
compressed layer (with a leading axis of 3 if a fused projection was split), and the fine-tuned
values of every other parameter that differs from the pretrained one. Its metadata lists the layers
and names the pretrained weights by their hash.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from tsv_bench.state_dicts.integrity import hash_weights
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.lazy import LazyMapping, Triplets, as_lazy
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.task_vector import TaskVector

KEY_LOW_RANK = "tsv_bench.compressed"  # the key in the metadata
FACTORS = ("u", "s", "vh")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LowRankContents:
    """The metadata of a compressed file."""

    pretrained: str  # `weights_hash` of the pretrained weights
    layers: list[str]  # stored as factors
    unchanged: list[str]  # not stored: equal to the pretrained weights
    split_qkv: bool

    def __post_init__(self) -> None:
        """Raises TypeError if the file says something else."""
        names = all(isinstance(name, str) for name in [*self.layers, *self.unchanged])
        if not names or not isinstance(self.split_qkv, bool):
            raise TypeError("not lists of names, or not true or false")


def is_compressed(state: StateDict) -> bool:
    return KEY_LOW_RANK in state.metadata


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, dtypes, shapes and values; the same for any file format."""
    if not isinstance(state, StateDict):
        return hash_weights(state, tuple)
    if not state.weights_hash:  # every compressed file asks for it
        state.weights_hash = hash_weights(state, tuple)
    return state.weights_hash


class OnPretrained(LazyMapping):
    """A fine-tuned checkpoint that is computed from the pretrained one and a compressed file."""

    def __init__(self, pretrained: Mapping[str, Tensor]) -> None:
        self._pretrained = as_lazy(pretrained)

    @property
    def names(self) -> Collection[str]:
        return self._pretrained.names

    def shape(self, name: str) -> torch.Size:
        return self._pretrained.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self._pretrained.dtype(name)


class CompressedStateDict(OnPretrained):
    """The fine-tuned checkpoint of a file of low-rank factors and its pretrained weights."""

    def __init__(self, pretrained: Mapping[str, Tensor], file: StateDict) -> None:
        """Raises ValueError if the file belongs to other pretrained weights or is damaged."""
        super().__init__(pretrained)
        self.path = file.path
        try:
            self.contents = LowRankContents(**json.loads(file.metadata[KEY_LOW_RANK]))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{file.path} is a compressed file whose metadata are damaged. Make it again."
            ) from error
        if self.contents.pretrained != weights_hash(pretrained):
            raise ValueError(
                f"{file.path} was compressed against other pretrained weights. Give the pretrained "
                f"checkpoint that it was made with."
            )
        self._matrices = Matrices((), self.contents.split_qkv)
        self._file = file
        self._layers, self._unchanged = set(self.contents.layers), set(self.contents.unchanged)
        for name in pretrained:
            keys = [f"{name}.{key}" for key in FACTORS] if name in self._layers else [name]
            lacking = [k for k in keys if k not in file and name not in self._unchanged]
            if lacking:
                raise ValueError(
                    f"{file.path} lacks {lacking[0]!r}, which its metadata promise. Make it again."
                )
            if name in self._layers:
                self._check_shapes(name, [file.shape(key) for key in keys])

    def _check_shapes(self, name: str, found: list[torch.Size]) -> None:
        whole = torch.empty(self.shape(name), device="meta")
        pieces, m, n = self._matrices.split(name, whole).shape
        lead, k = ([pieces] if pieces > 1 else []), (found[1] or [0])[-1]
        if [list(shape) for shape in found] != [[*lead, m, k], [*lead, k], [*lead, k, n]]:
            raise ValueError(
                f"{self.path} holds factors of {name!r} of shapes {[tuple(s) for s in found]}, "
                f"which do not make a layer of {tuple(whole.shape)}. Make it again."
            )

    def triplets(self, name: str) -> Triplets | None:
        """Return u [pieces, m, k], s [pieces, k] and vh [pieces, k, n] in float32.

        None if the layer is not compressed.
        """
        if name not in self._layers:
            return None
        u, s, vh = (self._file[f"{name}.{key}"].float() for key in FACTORS)
        return (u, s, vh) if u.ndim == 3 else (u[None], s[None], vh[None])

    def delta(self, name: str, start: int = 0, stop: int | None = None) -> Tensor | None:
        """Return rows of the layer's delta, or None if the file holds the weights instead."""
        shape = self.shape(name)
        if name in self._unchanged:
            return torch.zeros(shape)[start:stop] if shape else torch.zeros(())
        if name not in self._layers:
            return None
        u, s, vh = self.triplets(name)
        if len(u) == 1:
            return u[0, start:stop] * s[0] @ vh[0]
        return self._matrices.join(name, shape, (u * s[:, None] @ vh).unbind())[start:stop]

    def __getitem__(self, name: str) -> Tensor:
        base = self._pretrained[name]
        if name in self._unchanged:
            return base
        delta = self.delta(name)
        return self._file[name] if delta is None else (base.float() + delta).to(base.dtype)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        if name in self._unchanged:
            return self._pretrained.rows(name, start, stop)
        return (
            self[name][start:stop] if name in self._layers else self._file.rows(name, start, stop)
        )


class StoredTaskVector(TaskVector):
    """The task vector of a file that holds deltas, which need no subtraction."""

    def __init__(
        self, pretrained: Mapping[str, Tensor], finetuned: OnPretrained, device: str = "cpu"
    ) -> None:
        super().__init__(pretrained, finetuned, device)
        self.weights = finetuned

    def _subtract(self, name: str, start: int, stop: int, out: Tensor) -> None:
        delta = self.weights.delta(name, start, stop)
        if delta is None:
            super()._subtract(name, start, stop, out)
        else:
            out.copy_(delta)


class CompressedTaskVector(StoredTaskVector):
    """The task vector of a compressed file, whose triplets need no decomposition."""

    def recall(self, name: str, rank: int, kind: str) -> Triplets | None:
        stored = self.weights.triplets(name)
        if stored is None or kind.endswith("-split") != self.weights.contents.split_qkv:
            return None
        u, s, vh = (part.double() for part in stored)
        # The file's precision leaves u and vh not quite orthonormal: decompose their product anew.
        qu, ru = torch.linalg.qr(u)
        qv, rv = torch.linalg.qr(vh.mT)
        a, s, bh = torch.linalg.svd(ru * s[:, None] @ rv.mT)
        u, vh = qu @ a, bh @ qv.mT
        lacking = max(rank - s.shape[-1], 0)
        u, s, v = (pad(part, (0, lacking)) for part in (u, s, vh.mT))
        kept = u[..., :rank], s[..., :rank], v[..., :rank].mT
        return tuple(part.float().to(self._device) for part in kept)
