"""Masks as files: one merged vector that all tasks share, and for each task a bit an entry.

``shared.safetensors`` holds the merged vector, layer by layer. Beside it ``<task>.safetensors``
holds the masks of the same layers as bytes, eight entries each (`pack_bits`). Layers that no task
changed are in neither. The metadata of both name the pretrained weights and the merge by hashes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tsv_bench.state_dicts.low_rank import OnPretrained, weights_hash
from tsv_bench.state_dicts.state_dict import StateDict, open_state_dict
from tsv_bench.task_vectors.bits import unpack_bits

KEY_MASKED = "tsv_bench.masked"  # the key in the metadata
SHARED_FILE = "shared"  # its name without the suffix


@dataclass(frozen=True)
class MaskContents:
    """The metadata of a file of masks, and of the shared file."""

    pretrained: str  # `weights_hash` of the pretrained weights
    merge: str  # a hash of how both were made; the same in both
    scale: float  # a factor for the entries that the mask keeps; 1 in the shared file

    def __post_init__(self) -> None:
        """Raises TypeError or ValueError if the file says something else."""
        if not abs(self.scale) <= torch.finfo(torch.float32).max:
            raise ValueError("no factor that float32 has")


def is_masked(state: StateDict) -> bool:
    return KEY_MASKED in state.metadata


class MaskedStateDict(OnPretrained):
    """The fine-tuned checkpoint of a file of masks, its shared file and pretrained weights."""

    def __init__(self, pretrained: Mapping[str, Tensor], file: StateDict) -> None:
        """Open the shared file beside ``file`` and compare both.

        Raises FileNotFoundError if there is no shared file, ValueError if one of them belongs to
        another merge or to other pretrained weights, or is damaged.
        """
        super().__init__(pretrained)
        self.path, self._file = file.path, file
        contents = contents_of(file)
        if file.path.stem == SHARED_FILE:
            raise ValueError(
                f"{file.path} is the vector that the masks beside it are of, and no task's. Name "
                f"one of the files of masks."
            )
        path = file.path.with_name(f"{SHARED_FILE}.safetensors")
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
        """Return rows of the layer's delta, or None for an integer buffer, which has none."""
        shape = self.shape(name)
        if not self.dtype(name).is_floating_point:
            return None
        num_rows = shape[0] if shape else 1
        start, stop, _ = slice(start, stop).indices(num_rows)
        if name not in self.shared:
            return torch.zeros(shape)[start:stop] if shape else torch.zeros(())
        merged = self.shared.rows(name, start, stop).float()
        width = shape.numel() // max(num_rows, 1)
        first, last = start * width, stop * width  # as positions among the layer's entries
        packed = self._file.rows(name, first // 8, -(-last // 8))
        kept = unpack_bits(packed, len(packed) * 8)[first % 8 :][: last - first]
        return merged * kept.reshape(merged.shape) * self._scale

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        base = self._pretrained.rows(name, start, stop)
        if name not in self.shared:
            return base
        return (base.float() + self.delta(name, start, stop)).to(base.dtype)


def contents_of(file: StateDict) -> MaskContents:
    """Read the metadata of a file of masks. Raises ValueError if they are damaged."""
    try:
        return MaskContents(**json.loads(file.metadata[KEY_MASKED]))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{file.path} is a file of masks whose metadata are damaged. Make it again."
        ) from error
