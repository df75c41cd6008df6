"""Write vectors as LoRA adapters in peft's layout, and say what the truncation leaves out."""

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.linalg.svd import truncated_svd
from tsv_bench.merging.outputs import Metadata
from tsv_bench.methods.forms import Served
from tsv_bench.methods.matrixwise.decomposition import CompressedVector
from tsv_bench.state_dicts.adapters.adapter import AdapterTaskVector
from tsv_bench.state_dicts.adapters.config import CONFIG_FILE
from tsv_bench.state_dicts.adapters.layout import Factored, Layout, Namer, lay_out
from tsv_bench.state_dicts.inputs import Inputs
from tsv_bench.state_dicts.low_rank import PRECISIONS
from tsv_bench.state_dicts.state_dict import ADAPTER_FILES
from tsv_bench.state_dicts.writer import Shards, StateDictWriter
from tsv_bench.task_vectors.lazy import LazyMapping
from tsv_bench.task_vectors.streaming import stream
from tsv_bench.task_vectors.task_vector import is_changed
from tsv_bench.wording.columns import align

WEIGHTS = ADAPTER_FILES[0]


def lora_paths(output: Path, tasks: Iterable[str], one: bool) -> dict[str | None, Path]:
    """Return task -> its folder, or None -> that of all tasks. Raises ValueError for a file."""
    if output.suffix in (".safetensors", ".bin"):
        raise ValueError(
            f"output={output} names a file; write=lora writes a folder with {WEIGHTS} and "
            f"{CONFIG_FILE}. Name a folder."
        )
    return {None: output} if one else {task: output / task for task in tasks}


@dataclass
class Left:
    """What truncation leaves out of an adapter."""

    squares: float = 0.0  # of all entries of the matrices
    left_out: float = 0.0  # of what the factors lack
    largest: float = 0.0  # share of a matrix that is left out
    where: str = ""

    def add(self, name: str, delta: Tensor, product: Tensor) -> None:
        squares = float(delta.double().square().sum())
        left_out = float((delta - product).double().square().sum())
        self.squares, self.left_out = self.squares + squares, self.left_out + left_out
        if squares and left_out / squares > self.largest**2:
            self.largest, self.where = math.sqrt(left_out / squares), name

    @property
    def share(self) -> float:
        return math.sqrt(self.left_out / self.squares) if self.squares else 0.0


@dataclass
class Plan:
    """The contents of one adapter, known before anything is computed."""

    layout: Layout
    shards: Shards
    folder: tempfile.TemporaryDirectory = field(repr=False)  # holds its configuration


class LoraWriter:
    """Write adapters: the one vector of all tasks, or one for each."""

    def __init__(
        self, paths: Mapping[str | None, Path], rank: int | None, precision: str,
        alpha: float | Mapping[str, float],
        overwrite: bool,
    ) -> None:  # fmt: skip
        self.paths, self.outputs = paths, list(paths.values())
        self.rank, self.alpha, self.overwrite = rank, alpha, overwrite
        self.precision = PRECISIONS[precision]
        self.plans: dict[str | None, Plan] = {}
        empty = Shards({WEIGHTS: {}}, other_files=(Path(CONFIG_FILE),), folder=True)
        self.folders = dict.fromkeys(self.outputs, empty)

    def num_bytes(self) -> int:
        return sum(plan.shards.num_bytes() for plan in self.plans.values())

    def plan(self, inputs: Inputs, served: Served) -> None:
        """Find which layers tasks changed, and lay out the adapters."""
        adapters = [v for v in inputs.vectors.values() if isinstance(v, AdapterTaskVector)]
        name_of = Namer(inputs.base, [vector.weights for vector in adapters])
        named = {vector.config.base_name for vector in adapters} or {None}
        kinds = {vector.config.settings.get("task_type") for vector in adapters} or {None}
        about = {
            "base_model_name_or_path": (len(named) == 1 and named.pop()) or str(inputs.base.path),
            "task_type": kinds.pop() if len(kinds) == 1 else None,
        }
        for task in self.paths:
            vectors = inputs.vectors if task is None else {task: inputs.vectors[task]}
            changed = [n for n in inputs.base if any(_changed(v, n) for v in vectors.values())]
            vector = served.vectors[task if task is not None else next(iter(served))]
            ranks = {n: self._rank(vector, inputs.base, n) for n in inputs.base}
            layout = lay_out(inputs.base, changed, ranks, name_of)
            folder = tempfile.TemporaryDirectory(prefix="tsv-merge-")
            config = Path(folder.name) / CONFIG_FILE
            config.write_text(json.dumps({**layout.settings, **about}, indent=2) + "\n")
            shards = Shards(
                {WEIGHTS: self._params(layout, inputs.base)}, other_files=(config,), folder=True
            )
            self.plans[task] = Plan(layout, shards, folder)

    def _rank(self, vector: Mapping, base: LazyMapping, name: str) -> int:
        """Return the rank of a layer's factors: that of TSV-C's, at most ``self.rank``."""
        shape = base.shape(name)
        most = min(shape) if len(shape) == 2 else 1
        if isinstance(vector, CompressedVector) and base.dtype(name).is_floating_point:
            found = vector.factor_shapes(name)
            if found and len(found[1]) == 1:
                most = min(most, found[1][0])
        return max(1, min(most, self.rank or most))

    def _params(self, layout: Layout, base: LazyMapping) -> dict[str, tuple]:
        params = {}
        for name, own in layout.factored.items():
            m, n = reversed(base.shape(name)) if own.transposed else base.shape(name)
            params[f"{own.stem}.lora_A.weight"] = self.precision, (own.rank, n)
            params[f"{own.stem}.lora_B.weight"] = self.precision, (m, own.rank)
        for name, key in layout.whole.items():
            params[key] = base.dtype(name), tuple(base.shape(name))
        return params

    def write(
        self,
        inputs: Inputs,
        served: Served,
        metadata: Metadata,
        bar: Callable,
    ) -> str:
        about, left = metadata(final=True), {}
        for task, path in self.paths.items():
            plan, own = self.plans[task], Left()
            vector = served[task if task is not None else next(iter(served))]
            with (
                StateDictWriter(path, plan.shards, about[task], overwrite=self.overwrite) as writer,
                bar(total=len(inputs.base), desc=task or "merging") as layers,
            ):
                for name, delta in whole_layers(vector):
                    self._write_one(writer, plan.layout, inputs.base, name, delta, own)
                    layers.update()
                for name, key in plan.layout.whole.items():
                    if name not in vector:  # integer buffers of a module that is saved whole
                        writer.write(key, 0, inputs.base[name])
            left[task] = own
            plan.folder.cleanup()
        return self._render(left)

    def _write_one(
        self, writer: StateDictWriter, layout: Layout, base: LazyMapping, name: str, delta: Tensor,
        left: Left,
    ) -> None:  # fmt: skip
        alpha = self.alpha[name] if isinstance(self.alpha, Mapping) else self.alpha
        if found := layout.factored.get(name):
            delta = alpha * delta
            b, a = factors_of(delta, found)
            writer.write(f"{found.stem}.lora_A.weight", 0, a.to(self.precision))
            writer.write(f"{found.stem}.lora_B.weight", 0, b.to(self.precision))
            product = found.times * b @ a
            left.add(name, delta, (product.mT if found.transposed else product).to(delta.device))
        elif key := layout.whole.get(name):
            weights = base[name].to(delta.dtype) + alpha * delta.cpu()
            writer.write(key, 0, weights)

    def _render(self, left: Mapping[str | None, Left]) -> str:
        rows = [("adapter", "rank", "MB", "left out", "at most", "in")]
        for task, own in left.items():
            ranks = [found.rank for found in self.plans[task].layout.factored.values()]
            low, high = min(ranks, default=0), max(ranks, default=0)
            size = sum(path.stat().st_size for path in self.paths[task].iterdir())
            rows.append(
                (
                    task or self.paths[task].name,
                    f"{low}-{high}" if low < high else f"{low}",
                    f"{size / 1e6:.1f}",
                    f"{own.share:.2%}",
                    f"{own.largest:.2%}",
                    own.where or "-",
                )
            )
        return align(rows, gap=2)


def factors_of(delta: Tensor, found: Factored) -> tuple[Tensor, Tensor]:
    """Return B [out, r] and A [r, in], of one norm, whose product is nearest to a layer's delta."""
    matrix = delta.mT if found.transposed else delta
    rank = min(found.rank, *matrix.shape)
    u, s, vh = truncated_svd(matrix, rank)
    root = s.clamp(min=0).sqrt()
    b, a = u * root / found.times, root[:, None] * vh
    more = found.rank - rank  # attention: its other matrix has a higher rank
    b, a = torch.nn.functional.pad(b, (0, more)), torch.nn.functional.pad(a, (0, 0, 0, more))
    return b.cpu().contiguous(), a.cpu().contiguous()


def whole_layers(vector: Mapping) -> Iterator[tuple[str, Tensor]]:
    """Yield each layer of a vector whole."""
    last, parts = None, []
    for name, _, rows in stream(vector):
        if name != last and parts:
            yield last, torch.cat(parts) if len(parts) > 1 else parts[0]
            parts = []
        last = name
        parts.append(rows)
    if parts:
        yield last, torch.cat(parts) if len(parts) > 1 else parts[0]


def _changed(vector: LazyMapping, name: str) -> bool:
    return name in vector and is_changed(vector, name)
