"""Merging checkpoint files: from paths to a file that is whole or not there.

from functools import partial
from tsv_bench import merging, methods
serve = partial(methods.tsv_merge, rank_fraction=0.1)
merging.merge(serve, "base.safetensors", {"a": "a.pt", "b": "b/"}, "merged.safetensors")
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from tsv_bench import provenance
from tsv_bench.checkpoint_vectors import Hashes, check_contents, open_task_vector, pair_of
from tsv_bench.compressed import PRECISIONS
from tsv_bench.compressing import Stored, plan_compressed, write_compressed
from tsv_bench.factor_cache import FactorCache
from tsv_bench.linalg import at_least_float32
from tsv_bench.merge_outputs import (
    KEY,
    WRITES,
    check_outputs,
    check_place,
    dense_layout,
    output_paths,
)
from tsv_bench.method import served_by
from tsv_bench.state_dict_writer import StateDictWriter
from tsv_bench.state_dicts import ReadOnce, StateDict, open_state_dict
from tsv_bench.streaming import observer, shape_of, stream
from tsv_bench.task_vectors import TaskVector, is_changed

log = logging.getLogger(__name__)

Opened = TypeVar("Opened")


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge has written, and what it took."""

    outputs: list[Path]
    num_bytes: int
    seconds: float
    peak_memory: int  # resident, bytes, of the process so far
    stored: dict[str, Stored] = field(default_factory=dict)  # by task, of compressed files


def merge(
    serve: Callable[[Mapping], Mapping],
    pretrained: Path | str,
    finetuned: Mapping[str, Path | str],
    output: Path | str,
    *,
    alpha: float = 1.0,
    write: str = "model",
    precision: str = "float32",
    overwrite: bool = False,
    device: str = "cpu",
    factors: FactorCache | None = None,
    name: str | None = None,
    knobs: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Merged:
    """Merge checkpoints by a method (its function, with its knobs bound) and write the result.

    ``write`` "model" is pretrained + alpha * served, "vector" what is served, "compressed" the
    factors of what TSV-C serves, in ``precision``. A method that serves one vector writes
    ``output``, another ``output``/<task>.safetensors. ``name`` and ``knobs`` go into the metadata.

    ValueError or OSError for anything wrong with the arguments or the files, before long work.
    """
    started = time.monotonic()
    _check_arguments(alpha, write, precision, finetuned)
    serve({})  # checks the knobs
    pretrained, output = Path(pretrained), Path(output)
    states = {
        name: _named(name, partial(open_state_dict, path))
        for name, path in {"pretrained": pretrained, **finetuned}.items()
    }
    base = ReadOnce(states["pretrained"])
    open_vectors = {
        task: partial(open_task_vector, base, states[task], device) for task in finetuned
    }
    vectors = {task: _named(task, open_one) for task, open_one in open_vectors.items()}
    one = _serves_one(serve, write)
    paths = output_paths(output, base, finetuned, one and write != "compressed", write)
    check_outputs(paths.values(), states, overwrite, 0)
    layouts = {}
    if write != "compressed":
        layouts = {task: dense_layout(path, base, write) for task, path in paths.items()}
        check_outputs(
            paths.values(), states, overwrite, sum(x.num_bytes() for x in layouts.values())
        )

    with _bars(progress):
        with tqdm(total=len(states), desc="checking", unit="file", disable=not progress) as bar:
            hashes = check_contents(states, bar.update)
        _check_changes(base, vectors, hashes)
        if factors is not None:
            vectors = {
                task: open_one(
                    factors, pair_of(*hashes["pretrained"].values(), *hashes[task].values())
                )
                for task, open_one in open_vectors.items()
            }
        about = {
            "method": name or getattr(getattr(serve, "func", serve), "__name__", str(serve)),
            "knobs": dict(knobs if knobs is not None else getattr(serve, "keywords", {})),
            "write": write,
            "inputs": hashes,
            "version": version("tsv_bench"),
            "commit": provenance.commit(),
        }
        if write == "model":
            about["alpha"] = alpha
        served = served_by(serve, vectors, about["method"])
        stored: dict[str, Stored] = {}
        if write == "compressed":
            plans = {
                task: plan_compressed(
                    path, base, vectors[task], states[task], served[task], PRECISIONS[precision]
                )
                for task, path in paths.items()
            }
            check_place(output, sum(plan.layout.num_bytes() for plan in plans.values()))
            for task, plan in plans.items():
                stored[task] = write_compressed(
                    plan, base, vectors[task], states[task], served[task],
                    {KEY: json.dumps(about | {"task": task, "precision": precision})},
                    partial(tqdm, desc=task, unit="layer", disable=not progress),
                )  # fmt: skip
        for task, path in paths.items() if write != "compressed" else ():
            vector = served[task if task is not None else next(iter(finetuned))]
            metadata = {KEY: json.dumps(about | ({"task": task} if task else {}))}
            with (
                StateDictWriter(path, layouts[task], metadata) as writer,
                tqdm(
                    total=sum(map(len, layouts[task].files.values())), desc=task or "merging",
                    unit="layer", disable=not progress,
                ) as bar,
            ):  # fmt: skip
                for layer, start, rows in served_rows(base, vector, alpha, write):
                    writer.write(layer, start, rows)
                    bar.update(start == 0)
    return Merged(
        outputs=list(paths.values()),
        num_bytes=sum(_size(path) for path in paths.values()),
        seconds=time.monotonic() - started,
        peak_memory=provenance.peak_memory(),
        stored=stored,
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
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def _amounts(params: int, changed: int, num_bytes: int, original: int) -> tuple[str, ...]:
    share = f"{params / changed:.3f}" if changed else "-"
    return f"{params:,}", f"{changed:,}", share, f"{num_bytes / 1e6:.1f}", f"{original / 1e6:.1f}"


def served_rows(
    pretrained: StateDict, vector: Mapping[str, Tensor], alpha: float, write: str
) -> Iterator[tuple[str, int, Tensor]]:
    """What is written, block by block: (name, first row, rows)."""
    for name, start, rows in stream(vector):
        rows = rows.cpu()
        if write == "model":
            base = pretrained.rows(name, start, start + (len(rows) if rows.ndim else 1))
            rows = at_least_float32(base).add(rows, alpha=alpha)
        yield name, start, rows
    if write == "model":
        for name in pretrained:
            if name not in vector:  # integer buffers
                yield name, 0, pretrained[name]


def _serves_one(serve: Callable, write: str) -> bool:
    """Whether the method serves one vector to all tasks, told by made-up ones.

    ValueError when it serves no factors and these are to be written.
    """
    tiny = {task: {"layer": torch.eye(2)} for task in ("a", "b")}
    served = serve(tiny)
    if write == "compressed" and not hasattr(served["a"], "factors"):
        raise ValueError(
            "write=compressed stores the low-rank factors of TSV-C, and this method has none. "
            "Choose method=tsv_compress, or write=vector."
        )
    return served["a"] is served["b"]


def _check_arguments(
    alpha: float, write: str, precision: str, finetuned: Mapping[str, Path | str]
) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ValueError(f"alpha={alpha!r} is not a number.")
    if write not in WRITES:
        raise ValueError(f"write={write!r} is unknown. There are: {', '.join(WRITES)}.")
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is unknown. There are: {', '.join(PRECISIONS)}.")
    if not finetuned:
        raise ValueError("no fine-tuned checkpoints: give at least one, as in {cars: cars.pt}.")
    for task in finetuned:
        if task in ("pretrained", "", ".", "..") or Path(task).name != task:
            raise ValueError(f"the task's name {task!r} cannot be a file's name. Choose another.")


def _named(name: str, open_one: Callable[[], Opened]) -> Opened:
    """What ``open_one`` gives; an error says for which checkpoint."""
    try:
        return open_one()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        raise type(error)(f"{name}: {error}") from error


def _check_changes(
    pretrained: StateDict, vectors: Mapping[str, TaskVector], hashes: Mapping[str, Hashes]
) -> None:
    """ValueError when no task changed anything; a warning for one that did not."""
    same = [
        task
        for task, vector in vectors.items()
        # Small layers first: what trains anything trains one of these, mostly.
        if not any(is_changed(vector, name) for name in by_size(vector))
    ]
    if len(same) == len(vectors):
        raise ValueError(
            f"every fine-tuned checkpoint equals the pretrained one at {pretrained.path}: there is "
            f"nothing to merge. Was the same file given twice?"
        )
    for task in same:
        log.warning(f"{task} equals the pretrained checkpoint: it changes nothing.")


def by_size(vector: Mapping[str, Tensor]) -> list[str]:
    return sorted(vector, key=lambda name: shape_of(vector, name).numel())


@contextmanager
def _bars(progress: bool) -> Iterator[None]:
    """Bars for the steps that a method takes before its first layer."""

    def bar(steps: Iterable, total: int, label: str) -> Iterable:
        return tqdm(steps, total=total, desc=label, disable=not progress)

    token = observer.set(bar)
    try:
        yield
    finally:
        observer.reset(token)


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
