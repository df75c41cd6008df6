"""Statistics on disk: one safetensors file for each task and kind, read layer by layer.

The metadata say of what they are: the kind, how each layer's came about, the checkpoint by its
hash, and the data.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.state_dicts.writer import Shards, StateDictWriter
from tsv_bench.task_vectors.statistics import KINDS, Gathered, Statistics

STATISTICS = "tsv_bench.statistics"  # the metadata's key


class StatisticsFile(Statistics):
    """The statistics in one file; ``about`` says of what they are."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if there is no such file, ValueError if it holds no statistics."""
        state = open_state_dict(path)
        self.path = Path(path)
        try:
            self.about: dict[str, Any] = json.loads(state.metadata[STATISTICS])
            layers = self.about.pop("layers")
            gathered = {name: Gathered(**value) for name, value in layers.items()}
            assert set(gathered) == set(state) and self.about["kind"] in KINDS
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise ValueError(
                f"{path} holds no statistics, or damaged ones ({type(error).__name__}). Write them "
                f"with tsv-observe."
            ) from error
        super().__init__(state, gathered)

    @property
    def kind(self) -> str:
        """The kind of the statistics."""
        return self.about["kind"]


def write_statistics(
    path: Path,
    kind: str,
    gathered: Mapping[str, Gathered],
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], Tensor],
    about: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write the statistics of one kind, layer by layer as ``read`` returns them, in float32.

    ``about``: of what they are, as plain data. Raises OSError if there is no room.
    """
    layers = {name: asdict(value) for name, value in gathered.items()}
    metadata = {STATISTICS: json.dumps({**about, "kind": kind, "layers": layers})}
    specs = {name: (torch.float32, tuple(shapes[name])) for name in gathered}
    with StateDictWriter(path, Shards({path.name: specs}), metadata, overwrite=overwrite) as writer:
        for name in gathered:
            writer.write(name, 0, read(name))


def check_owner(
    file: StatisticsFile, kind: str, task: str, layers: Mapping[str, Any], checkpoint: str
) -> None:
    """Check that statistics are of this kind and checkpoint, and that its layers are there.

    ``layers``: the task vector. ``checkpoint``: the sha256 of the fine-tuned weights. Raises
    ValueError that says what they are of.
    """
    if file.kind != kind:
        raise ValueError(
            f"{kind} of {task}: {file.path} holds {file.kind}, {KINDS[file.kind]}. Write {kind} "
            f"with tsv-observe kinds=[{kind}]."
        )
    if (found := file.about.get("checkpoint")) != checkpoint:
        raise ValueError(
            f"{kind} of {task}: {file.path} is of another checkpoint, with sha256 {found}; the one "
            f"that is merged has {checkpoint}. Observe that one."
        )
    if odd := [name for name in file if name not in layers]:
        raise ValueError(
            f"{kind} of {task}: {file.path} has {len(odd)} layers that the checkpoint has not, "
            f"first {odd[0]!r}. Was it observed under other names?"
        )
