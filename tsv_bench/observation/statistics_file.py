"""Statistics on disk: one safetensors file for each task and kind, read layer by layer.

The metadata say of what they are: the kind, how each layer's came about, the checkpoint by its
hash, and the data.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.state_dicts.writer import Shards, StateDictWriter
from tsv_bench.task_vectors.kinds import KINDS
from tsv_bench.task_vectors.lazy import LazyMapping
from tsv_bench.task_vectors.statistics import Gathered, Statistics

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


def identity(hashes: Mapping[str, str]) -> str:
    """Return one hash of a checkpoint: that of its file, or of the hashes of its shards."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


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
            writer.write(name, 0, read(name).cpu())


def open_statistics(
    kind: str, paths: Mapping[str, Path | str], tasks: Iterable[str]
) -> dict[str, StatisticsFile]:
    """Open the statistics of one kind of all tasks, in the order of ``tasks``.

    Raises OSError or ValueError that names the task whose file is missing, damaged or of another
    kind.
    """
    tasks, found = list(tasks), {}
    if odd := [task for task in paths if task not in tasks]:
        raise ValueError(f"{kind} has {odd[0]!r}, and there is no such checkpoint in finetuned.")
    for task in tasks:
        if task not in paths:
            raise ValueError(
                f"{kind} has no file of {task}. Write one with: tsv-observe kinds=[{kind}], and "
                f"give {kind}='{{{task}: {task}.{kind}.safetensors, ...}}'."
            )
        try:
            found[task] = StatisticsFile(Path(paths[task]))
        except (OSError, ValueError) as error:
            kind_of_error = OSError if isinstance(error, OSError) else ValueError
            raise kind_of_error(f"{kind} of {task}: {error}") from error
        if found[task].kind != kind:
            raise ValueError(
                f"{kind} of {task}: {paths[task]} holds {found[task].kind}, "
                f"{KINDS[found[task].kind]}. Write {kind} with: tsv-observe kinds=[{kind}]"
            )
    return found


def check_owner(file: StatisticsFile, kind: str, task: str, checkpoint: str) -> None:
    """Raise ValueError unless statistics are of the checkpoint with this `identity`."""
    if (found := file.about.get("checkpoint")) != checkpoint:
        raise ValueError(
            f"{kind} of {task}: {file.path} is of another checkpoint, with sha256 {found}; the one "
            f"that is merged has {checkpoint}. Observe that one."
        )


def check_layers(file: StatisticsFile, kind: str, task: str, vector: LazyMapping) -> None:
    """Raise ValueError unless the checkpoint has the layers that statistics are of, as wide."""
    shapes = {name: file.shape(name) for name in file}
    if odd := [name for name in shapes if name not in vector]:
        raise ValueError(
            f"{kind} of {task}: {file.path} has {len(odd)} layers that the checkpoint has not, "
            f"first {odd[0]!r}. Was another model observed?"
        )
    for name, shape in shapes.items():
        layer, axis = vector.shape(name), file.gathered(name).axis
        width = layer[axis] if len(layer) == 2 else None
        expected = {"inputs": (width, width), "means": (width,), "fisher": tuple(layer)}[kind]
        if tuple(shape) != expected:
            raise ValueError(
                f"{kind} of {task}: {file.path} has {name!r} as {tuple(shape)}, and the "
                f"checkpoint's, {tuple(layer)}, has {expected}. Was another backbone observed?"
            )
