"""Masks as files: a bit an entry for each task, of one merged vector that all tasks share.

``shared.safetensors`` holds the merged vector, layer by layer. Beside it ``<task>.safetensors``
holds the same layers as bytes, eight entries each (`pack_bits`). What no task changed is in
neither. The metadata of both say for which pretrained weights they are and of which merge.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tsv_bench.state_dicts.low_rank import OnPretrained, weights_hash
from tsv_bench.state_dicts.state_dict import StateDict, open_state_dict
from tsv_bench.task_vectors.bits import unpack_bits

KEY = "tsv_bench.masked"  # of the metadata
SHARED = "shared"  # the file that stands beside those of tasks


@dataclass(frozen=True)
class Contents:
    """What the metadata of the files say."""

    pretrained: str  # `weights_hash` of the pretrained weights
    merge: str  # the same in the shared file: how both were made
    scale: float  # of what the mask keeps; 1 in the shared file


def is_masked(state: StateDict) -> bool:
    return KEY in state.metadata


class MaskedStateDict(OnPretrained):
    """The fine-tuned checkpoint that a file of masks stands for, on its pretrained weights."""

    def __init__(self, pretrained: Mapping[str, Tensor], file: StateDict) -> None:
        """ValueError where the files belong to others, FileNotFoundError without the shared one."""
        super().__init__(pretrained)
        self.path, self._file = file.path, file
        contents = contents_of(file)
        if file.path.stem == SHARED:
            raise ValueError(
                f"{file.path} is the vector that the masks beside it are of, and no task's. Name "
                f"one of the others."
            )
        path = file.path.with_name(f"{SHARED}.safetensors")
        if not path.exists():
            raise FileNotFoundError(
                f"no {path}, the merged vector that the masks in {file.path} are of. Put it there."
            )
        self.shared = open_state_dict(path)
        if not is_masked(self.shared) or contents_of(self.shared).merge != contents.merge:
            raise ValueError(
                f"the masks in {file.path} are not of the merged vector in {path}: they were made "
                f"by another merge. Put the files of one merge together, or make them again."
            )
        if contents.pretrained != weights_hash(pretrained):
            raise ValueError(
                f"the masks in {file.path} were made on other pretrained weights. Give the "
                f"pretrained checkpoint that they were made with."
            )
        self._scale = contents.scale
        for name in self.shared:
            num_bytes = -(-self.shared.shape(name).numel() // 8)
            known = name in pretrained and self.shape(name) == self.shared.shape(name)
            if not known or name not in file or file.shape(name) != (num_bytes,):
                raise ValueError(
                    f"{file.path} lacks the mask of {name!r}, or holds one of another size than "
                    f"{path} says. Make both again."
                )

    def delta(self, name: str, start: int = 0, stop: int | None = None) -> Tensor | None:
        """Rows of finetuned minus pretrained; None for integer buffers, which have none."""
        shape = self.shape(name)
        if not self.dtype(name).is_floating_point:
            return None
        num_rows = shape[0] if shape else 1
        start, stop, _ = slice(start, stop).indices(num_rows)
        if name not in self.shared:
            return torch.zeros(shape)[start:stop] if shape else torch.zeros(())
        merged = self.shared.rows(name, start, stop).float()
        width = shape.numel() // max(num_rows, 1)
        first, last = start * width, stop * width  # of the layer's entries
        packed = self._file.rows(name, first // 8, -(-last // 8))
        kept = unpack_bits(packed, len(packed) * 8)[first % 8 :][: last - first]
        return merged * kept.reshape(merged.shape) * self._scale

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        base = self._pretrained.rows(name, start, stop)
        if name not in self.shared:
            return base
        return (base.float() + self.delta(name, start, stop)).to(base.dtype)


def contents_of(file: StateDict) -> Contents:
    try:
        return Contents(**json.loads(file.metadata[KEY]))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{file.path} is a file of masks whose metadata are damaged. Make it again."
        ) from error
