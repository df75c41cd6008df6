"""Write low-rank factors as files and count what they store; format: `state_dicts.low_rank`."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tsv_bench.linalg.precision import all_finite
from tsv_bench.merging.outputs import Metadata
from tsv_bench.methods.forms import Served
from tsv_bench.methods.matrixwise.decomposition import CompressedVector
from tsv_bench.state_dicts.inputs import Inputs
from tsv_bench.state_dicts.low_rank import (
    FACTORS,
    KEY_LOW_RANK,
    PRECISIONS,
    LowRankContents,
    StoredTaskVector,
    weights_hash,
)
from tsv_bench.state_dicts.writer import Shards, StateDictWriter
from tsv_bench.task_vectors.lazy import LazyMapping
from tsv_bench.task_vectors.task_vector import is_changed
from tsv_bench.wording.columns import align


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a compressed file stores of a task, beside the size of its fine-tuned checkpoint."""

    ranks: tuple[int, int]  # lowest and highest among the layers
    num_params: int  # entries of factors and of layers that are kept whole
    num_bytes: int  # on the disk
    changed_params: int  # entries of the layers that fine-tuning changed
    original_bytes: int  # on the disk, of the checkpoint


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The contents of one task's file, known before anything is decomposed."""

    path: Path
    shards: Shards
    factors: dict[str, list[torch.Size]]  # layer -> shapes of u, s, vh
    whole: list[str]  # other layers that fine-tuning changed
    finetuned: LazyMapping  # the weights


class LowRankWriter:
    """Write low-rank factors, a file for each task."""

    folders: Mapping[Path, Shards] = {}

    def __init__(self, paths: Mapping[str, Path], precision: str, overwrite: bool) -> None:
        self.paths, self.outputs = paths, list(paths.values())
        self.precision, self.overwrite = PRECISIONS[precision], overwrite
        self.plans: dict[str, Plan] = {}

    def num_bytes(self) -> int:
        return sum(plan.shards.num_bytes() for plan in self.plans.values())

    def plan(self, inputs: Inputs, served: Served) -> None:
        """Find which layers each task changed, and the shapes of their factors."""
        self.plans = {task: self._plan_one(task, inputs, served) for task in self.paths}

    def _plan_one(self, task: str, inputs: Inputs, served: Served) -> Plan:
        path, finetuned, vector = self.paths[task], inputs.finetuned[task], inputs.vectors[task]
        if isinstance(inputs.vectors[task], StoredTaskVector):
            finetuned = inputs.vectors[task].weights
        changed = [name for name in vector if is_changed(vector, name)]
        shapes_of = served.vectors[task].factor_shapes
        factors = {name: shapes for name in changed if (shapes := shapes_of(name))}
        whole = [name for name in changed if name not in factors]
        shards = factor_shards(path, factors, finetuned, whole, self.precision)
        return Plan(path=path, shards=shards, factors=factors, whole=whole, finetuned=finetuned)

    def write(
        self,
        inputs: Inputs,
        served: Served,
        metadata: Metadata,
        bar: Callable,
    ) -> str:
        about = metadata(final=True)
        return render_stored(
            {
                task: self._write_one(task, inputs, served.vectors[task], about[task], bar)
                for task in self.plans
            }
        )

    def _write_one(
        self,
        task: str,
        inputs: Inputs,
        vector: CompressedVector,
        metadata: Mapping[str, str],
        bar: Callable,
    ) -> Stored:
        plan = self.plans[task]
        changed = [*plan.factors, *plan.whole]
        contents = LowRankContents(
            pretrained=weights_hash(inputs.base),
            layers=list(plan.factors),
            unchanged=[name for name in inputs.base if name not in changed],
            split_qkv=vector.split_qkv,
        )
        metadata = {**metadata, KEY_LOW_RANK: json.dumps(asdict(contents))}
        with (
            StateDictWriter(plan.path, plan.shards, metadata, overwrite=self.overwrite) as writer,
            bar(total=len(changed), desc=task) as layers,
        ):
            for name, triplets in vector.factors(plan.factors):
                for key, shape, factor in zip(FACTORS, plan.factors[name], triplets, strict=True):
                    if not all_finite(factor):
                        raise ValueError(f"the factor {key} of {task}'s {name!r} is not finite.")
                    writer.write(f"{name}.{key}", 0, factor.cpu().reshape(shape))
                layers.update()
            for name in plan.whole:
                writer.write(name, 0, plan.finetuned[name])
                layers.update()
        ranks = [u[-1] for u, _, _ in plan.factors.values()]
        shards = plan.shards.files.values()
        return Stored(
            ranks=(min(ranks, default=0), max(ranks, default=0)),
            num_params=sum(math.prod(shape) for params in shards for _, shape in params.values()),
            num_bytes=plan.path.stat().st_size,
            changed_params=sum(vector.shape(name).numel() for name in changed),
            original_bytes=sum(file.stat().st_size for file in inputs.finetuned[task].files),
        )


def factor_shards(
    path: Path,
    factors: Mapping[str, list[torch.Size]],
    finetuned: LazyMapping,
    whole: Iterable[str],
    precision: torch.dtype,
) -> Shards:
    """Return the parameters of a compressed file: factors, and the layers that are kept whole.

    ``factors``: layer -> shapes of u, s, vh. Raises ValueError if a layer has a factor's name.
    """
    params = {
        f"{name}.{key}": (precision, tuple(shape))
        for name, shapes in factors.items()
        for key, shape in zip(FACTORS, shapes, strict=True)
    }
    kept = {name: (finetuned.dtype(name), tuple(finetuned.shape(name))) for name in whole}
    if odd := set(params) & set(kept):
        raise ValueError(f"the parameter {min(odd)!r} has the name of another's factor.")
    return Shards({path.name: params | kept})


def render_stored(stored: Mapping[str, Stored]) -> str:
    """Return a table of what compressed files store, task by task and in total."""
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
