"""Write masked methods for all tasks in one pass, as bit masks or as full checkpoints.

The format of bit masks is described in `state_dicts.masked`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.merging.dense_writer import DenseWriter, copies
from tsv_bench.merging.outputs import Metadata
from tsv_bench.methods.forms import Masked, Served
from tsv_bench.state_dicts.entries.kinds import is_running
from tsv_bench.state_dicts.inputs import Inputs
from tsv_bench.state_dicts.low_rank import PRECISIONS, weights_hash
from tsv_bench.state_dicts.masked import KEY_MASKED, SHARED_FILE, MaskContents
from tsv_bench.state_dicts.writer import MADE_BY, Shards, StateDictWriter
from tsv_bench.task_vectors.task_vector import is_changed
from tsv_bench.wording.columns import align


@dataclass(frozen=True, kw_only=True)
class StoredMask:
    """What a file of masks stores of a task."""

    num_kept: int  # entries that the mask keeps
    num_entries: int  # of all masked layers
    num_bytes: int  # on the disk


class MaskWriter:
    """Write bit masks, a file for each task, and beside them one file with the shared vector."""

    folders: Mapping[Path, Shards] = {}

    def __init__(self, paths: Mapping[str, Path], precision: str, overwrite: bool) -> None:
        """Raises ValueError if a task has the name of the shared file."""
        if SHARED_FILE in paths:
            raise ValueError(
                f"the task's name {SHARED_FILE!r} is that of the file which all masks share. "
                f"Choose another."
            )
        self.paths, self.precision, self.overwrite = paths, PRECISIONS[precision], overwrite
        self.shared = next(iter(paths.values())).with_name(f"{SHARED_FILE}.safetensors")
        self.outputs = [*paths.values(), self.shared]
        self.shards: dict[Path, Shards] = {}

    def num_bytes(self) -> int:
        return sum(shards.num_bytes() for shards in self.shards.values())

    def plan(self, inputs: Inputs, served: Served) -> None:
        """Find the layers that any task changed: the files hold these.

        Raises ValueError for running statistics, of which masks would make wrong ones.
        """
        vectors = inputs.vectors
        shapes = {
            name: tuple(inputs.base.shape(name))
            for name in next(iter(vectors.values()))
            if any(is_changed(vector, name) for vector in vectors.values())
        }
        if running := next(filter(is_running, shapes), None):
            raise ValueError(
                f"{running!r} is a running statistic of BatchNorm: bits of a mask do not give back "
                f"a variance, and it might be below zero. Write models: write=model."
            )
        bits = {n: (torch.uint8, (-(-torch.Size(s).numel() // 8),)) for n, s in shapes.items()}
        whole = {name: (self.precision, shape) for name, shape in shapes.items()}
        self.shards = {self.shared: Shards({self.shared.name: whole})}
        self.shards |= {path: Shards({path.name: bits}) for path in self.paths.values()}

    def write(
        self,
        inputs: Inputs,
        served: Masked,
        metadata: Metadata,
        bar: Callable,
    ) -> str:
        about = metadata(final=True)
        merge = merge_identity(about)
        base = weights_hash(inputs.base)
        num_kept, num_entries = torch.zeros(len(served), dtype=torch.int64), 0
        stored = self.shards[self.shared].files[self.shared.name]
        with ExitStack() as files:

            def open_file(path: Path, scale: float, about: Mapping[str, str]) -> StateDictWriter:
                contents = {KEY_MASKED: json.dumps(asdict(MaskContents(base, merge, scale)))}
                about = {**about, **contents}
                return files.enter_context(
                    StateDictWriter(path, self.shards[path], about, overwrite=self.overwrite)
                )

            whole = open_file(self.shared, 1.0, {})
            bits = [
                open_file(self.paths[task], vector.scale, about[task])
                for task, vector in served.vectors.items()
            ]
            layers = files.enter_context(bar(total=len(stored), desc="masks"))
            written: dict[str, int] = {}  # layer -> bytes of its bits so far
            for name, start, (rows, packed) in served.rows(pack=True):
                if name in stored:
                    whole.write(name, start, rows.cpu())
                    packed = packed.cpu()
                    for writer, of_task in zip(bits, packed, strict=True):
                        writer.write(name, written.get(name, 0), of_task)
                    written[name] = written.get(name, 0) + packed.shape[1]
                    num_kept += ones(packed)
                    num_entries += rows.numel()
                    layers.update(start == 0)
        masks = {
            task: StoredMask(
                num_kept=int(kept), num_entries=num_entries, num_bytes=path.stat().st_size
            )
            for (task, path), kept in zip(self.paths.items(), num_kept, strict=True)
        }
        return render_masks(masks, self.shared.stat().st_size)


class MaskedDenseWriter(DenseWriter):
    """Write the models or vectors of a masked method, those of all tasks in one pass."""

    def write(
        self,
        inputs: Inputs,
        served: Masked,
        metadata: Metadata,
        bar: Callable,
    ) -> str:
        about = metadata(final=False)
        model = self.write_what == "model"
        with ExitStack() as files:
            writers = {
                task: files.enter_context(
                    StateDictWriter(path, self.shards[task], about[task], overwrite=self.overwrite)
                )
                for task, path in self.paths.items()
            }
            layers = files.enter_context(bar(total=len(served.masks.names), desc="merging"))
            scales = [served.vectors[task].scale for task in writers]

            def finish(name: str, start: int, found: tuple[Tensor, Tensor]) -> list[Tensor]:
                rows, kept = found
                each = zip(writers, kept, scales, strict=True)
                return [
                    self._finish(inputs, task, name, start, rows * own * scale)
                    for task, own, scale in each
                ]

            for name, start, each in served.rows(pack=False, finish=finish):
                for writer, rows in zip(writers.values(), each, strict=True):
                    for copy in (name, *copies(inputs, name)):
                        writer.write(copy, start, rows, fits=True)
                layers.update(start == 0)
            for name in inputs.base if model else ():
                if name not in served.masks.names and name not in inputs.tied:  # integer buffers
                    for writer in writers.values():
                        writer.write(name, 0, inputs.base[name])
            about = metadata(final=True)
            for task, writer in writers.items():
                self.finish(task, writer, about)
        self.say(inputs)
        return ""


def merge_identity(metadata: Mapping[str, Mapping[str, str]]) -> str:
    """Return a hash of how the files were made: the same for all files of one merge."""
    about = json.loads(next(iter(metadata.values()))[MADE_BY])
    about = {key: value for key, value in about.items() if key not in ("task", "precision")}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def ones(packed: Tensor) -> Tensor:
    """Count the bits that are set: bytes [tasks, n] -> int64 [tasks]."""
    return torch.stack([((packed >> place) & 1).sum(dim=1) for place in range(8)]).sum(dim=0)


def render_masks(stored: Mapping[str, StoredMask], num_shared: int) -> str:
    """Return a table of what the tasks' masks keep and of the files' sizes."""
    rows = [("task", "kept", "of entries", "share", "MB")]
    for task, mask in stored.items():
        share = mask.num_kept / max(mask.num_entries, 1)
        size = f"{mask.num_bytes / 1e6:.1f}"
        rows.append((task, f"{mask.num_kept:,}", f"{mask.num_entries:,}", f"{share:.3f}", size))
    return align([*rows, (SHARED_FILE, "", "", "", f"{num_shared / 1e6:.1f}")], gap=2)
