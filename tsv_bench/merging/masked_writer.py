"""Writing what masks serve, of all tasks in one pass: as files of masks (`masked`), or dense."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.columns import align
from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.masked.masked_vector import MaskedVector, masked_rows
from tsv_bench.state_dicts.low_rank import weights_hash
from tsv_bench.state_dicts.masked import KEY, SHARED, Contents
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.state_dicts.writer import Layout, StateDictWriter
from tsv_bench.task_vectors.lazy import shape_of
from tsv_bench.task_vectors.task_vector import TaskVector, is_changed


@dataclass(frozen=True, kw_only=True)
class StoredMask:
    """What a file of masks stores of a task."""

    num_kept: int  # entries
    num_entries: int
    num_bytes: int  # on the disk


def masks_layout(
    paths: Mapping[str, Path],
    pretrained: StateDict,
    vectors: Mapping[str, TaskVector],
    precision: torch.dtype,
) -> dict[Path, Layout]:
    """The shared file's and each task's, of the layers that any task changed; shared one first."""
    shapes = {
        name: tuple(shape_of(pretrained, name))
        for name in next(iter(vectors.values()))
        if any(is_changed(vector, name) for vector in vectors.values())
    }
    shared = shared_path(paths)
    bits = {n: (torch.uint8, (-(-torch.Size(s).numel() // 8),)) for n, s in shapes.items()}
    whole = {name: (precision, shape) for name, shape in shapes.items()}
    layouts = {shared: Layout({shared.name: whole})}
    return layouts | {path: Layout({path.name: bits}) for path in paths.values()}


def shared_path(paths: Mapping[str, Path]) -> Path:
    """Beside the tasks' files. ValueError when a task has its name."""
    if SHARED in paths:
        raise ValueError(
            f"the task's name {SHARED!r} is that of the file which all masks share. Choose another."
        )
    return next(iter(paths.values())).with_name(f"{SHARED}.safetensors")


def write_masks(
    served: Mapping[str, MaskedVector],
    layouts: Mapping[Path, Layout],
    pretrained: StateDict,
    about: Mapping[str, object],
    metadata: Mapping[str, Mapping[str, str]],
    done: Callable[[int], object],
) -> dict[str, StoredMask]:
    """Write the shared file and each task's; ``about`` tells this merge from others.

    ``metadata``: of each task's file. ``done`` gets the number of layers.
    """
    merge = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    base, masks = weights_hash(pretrained), next(iter(served.values())).masks
    shared, *paths = layouts
    num_kept, num_entries = torch.zeros(len(served), dtype=torch.int64), 0
    with ExitStack() as files:

        def open_file(path: Path, scale: float, about: Mapping[str, str]) -> StateDictWriter:
            contents = {KEY: json.dumps(asdict(Contents(base, merge, scale)))}
            return files.enter_context(StateDictWriter(path, layouts[path], {**about, **contents}))

        whole = open_file(shared, 1.0, {})
        bits = [
            open_file(path, vector.scale, metadata[task])
            for path, (task, vector) in zip(paths, served.items(), strict=True)
        ]
        written: dict[str, int] = {}  # bytes of a layer's bits
        stored = layouts[shared].files[shared.name]
        for name, start, (rows, packed) in masked_rows(masks, pack=True):
            if name in stored:
                whole.write(name, start, rows.cpu())
                packed = packed.cpu()
                for writer, of_task in zip(bits, packed, strict=True):
                    writer.write(name, written.get(name, 0), of_task)
                written[name] = written.get(name, 0) + packed.shape[1]
                num_kept += ones(packed)
                num_entries += rows.numel()
                done(start == 0)
    return {
        task: StoredMask(num_kept=int(kept), num_entries=num_entries, num_bytes=path.stat().st_size)
        for task, kept, path in zip(served, num_kept, paths, strict=True)
    }


def ones(packed: Tensor) -> Tensor:
    """Bits that are set, [tasks] of bytes [tasks, n]."""
    return torch.stack([((packed >> place) & 1).sum(dim=1) for place in range(8)]).sum(dim=0)


def write_masked(
    served: Mapping[str, MaskedVector],
    paths: Mapping[str, Path],
    layouts: Mapping[str, Layout],
    pretrained: StateDict,
    alpha: float,
    write: str,
    metadata: Mapping[str, Mapping[str, str]],
    done: Callable[[int], object],
) -> None:
    """Write what each task is served as ``write`` "model" or "vector"; all tasks in one pass."""
    masks = next(iter(served.values())).masks
    with ExitStack() as files:
        writers = {
            task: files.enter_context(StateDictWriter(path, layouts[task], metadata[task]))
            for task, path in paths.items()
        }
        for name, start, (rows, kept) in masked_rows(masks, pack=False):
            stop = start + (len(rows) if rows.ndim else 1)
            base = at_least_float32(pretrained.rows(name, start, stop))
            for (task, writer), own in zip(writers.items(), kept, strict=True):
                mine = (rows * own * served[task].scale).cpu()
                writer.write(name, start, base.add(mine, alpha=alpha) if write == "model" else mine)
            done(start == 0)
        for name in pretrained if write == "model" else ():
            if name not in masks.names:  # integer buffers
                for writer in writers.values():
                    writer.write(name, 0, pretrained[name])


def render_masks(stored: Mapping[str, StoredMask], num_shared: int) -> str:
    """A table of what the tasks' masks keep, and the bytes of all files."""
    rows = [("task", "kept", "of entries", "share", "MB")]
    for task, mask in stored.items():
        share = mask.num_kept / max(mask.num_entries, 1)
        size = f"{mask.num_bytes / 1e6:.1f}"
        rows.append((task, f"{mask.num_kept:,}", f"{mask.num_entries:,}", f"{share:.3f}", size))
    return align([*rows, (SHARED, "", "", "", f"{num_shared / 1e6:.1f}")], gap=2)
