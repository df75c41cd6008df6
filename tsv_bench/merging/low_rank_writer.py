"""Writing TSV-C as files (their format is in `compressed`) and counting what they store."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.columns import align
from tsv_bench.merging.outputs import compressed_layout
from tsv_bench.state_dicts.low_rank import (
    FACTORS,
    KEY,
    CompressedStateDict,
    Contents,
    is_compressed,
    weights_hash,
)
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.state_dicts.writer import Layout, StateDictWriter
from tsv_bench.task_vectors.task_vector import TaskVector, is_changed


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a compressed file stores of a task, against its fine-tuned checkpoint."""

    ranks: tuple[int, int]  # lowest and highest of a layer
    num_params: int  # factors, and what is whole
    num_bytes: int  # on the disk
    changed_params: int  # of the checkpoint: what fine-tuning changed, layer by layer
    original_params: int
    original_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What goes into one task's compressed file, known before anything is decomposed."""

    path: Path
    layout: Layout
    shapes: dict[str, list[torch.Size]]  # layer -> of u, s, vh
    whole: list[str]  # other layers that fine-tuning changed
    read: Mapping[str, Tensor]  # the fine-tuned weights


def plan_compressed(
    path: Path,
    pretrained: StateDict,
    vector: TaskVector,
    finetuned: StateDict,
    served: Mapping[str, Tensor],
    precision: torch.dtype,
) -> Plan:
    """``served``: what TSV-C serves the task, for the shapes of its factors."""
    read = CompressedStateDict(pretrained, finetuned) if is_compressed(finetuned) else finetuned
    changed = [name for name in vector if is_changed(vector, name)]
    shapes = {name: s for name in changed if (s := served.factor_shapes(name))}
    whole = [name for name in changed if name not in shapes]
    layout = compressed_layout(path, shapes, read, whole, precision)
    return Plan(path=path, layout=layout, shapes=shapes, whole=whole, read=read)


def write_compressed(
    plan: Plan,
    pretrained: StateDict,
    vector: TaskVector,
    finetuned: StateDict,
    served: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    bar: Callable,
) -> Stored:
    """Write one task's compressed file, as planned."""
    shapes, changed = plan.shapes, [*plan.shapes, *plan.whole]
    contents = Contents(
        pretrained=weights_hash(pretrained),
        layers=list(shapes),
        unchanged=[name for name in pretrained if name not in changed],
        split_qkv=served.split_qkv,
    )
    metadata = {**metadata, KEY: json.dumps(asdict(contents))}
    with (
        StateDictWriter(plan.path, plan.layout, metadata) as writer,
        bar(total=len(changed)) as layers,
    ):
        for name, triplets in served.factors(shapes):
            for key, shape, factor in zip(FACTORS, shapes[name], triplets, strict=True):
                writer.write(f"{name}.{key}", 0, factor.cpu().reshape(shape))
            layers.update()
        for name in plan.whole:
            writer.write(name, 0, plan.read[name])
            layers.update()
    ranks = [u[-1] for u, _, _ in shapes.values()]
    return Stored(
        ranks=(min(ranks, default=0), max(ranks, default=0)),
        num_params=sum(
            math.prod(s) for params in plan.layout.files.values() for _, s in params.values()
        ),
        num_bytes=plan.path.stat().st_size,
        changed_params=sum(vector.shape(name).numel() for name in changed),
        original_params=sum(plan.read.shape(name).numel() for name in plan.read),
        original_bytes=sum(file.stat().st_size for file in finetuned.files),
    )


def render_stored(stored: Mapping[str, Stored]) -> str:
    """A table of what compressed files store, task by task and in total."""
    head = ("task", "rank", "stored", "of changed", "share", "MB", "of MB")
    lines = [head]
    total = [0, 0, 0, 0]
    for task, own in stored.items():
        low, high = own.ranks
        numbers = own.num_params, own.changed_params, own.num_bytes, own.original_bytes
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        lines.append((task, f"{low}-{high}" if low < high else f"{low}", *_amounts(*numbers)))
    lines.append(("total", "", *_amounts(*total)))
    return align(lines, gap=2)


def _amounts(params: int, changed: int, num_bytes: int, original: int) -> tuple[str, ...]:
    share = f"{params / changed:.3f}" if changed else "-"
    return f"{params:,}", f"{changed:,}", share, f"{num_bytes / 1e6:.1f}", f"{original / 1e6:.1f}"
