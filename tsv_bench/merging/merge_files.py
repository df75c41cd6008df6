"""Merging checkpoint files: from paths to a file that is whole or not there.

from functools import partial
from tsv_bench import merging, methods
serve = partial(methods.tsv_merge, rank_fraction=0.1)
merging.merge(serve, "base.safetensors", {"a": "a.pt", "b": "b/"}, "merged.safetensors")
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tsv_bench import provenance
from tsv_bench.files import check_place
from tsv_bench.merging.dense_writer import served_rows
from tsv_bench.merging.low_rank_writer import plan_compressed, render_stored, write_compressed
from tsv_bench.merging.masked_writer import (
    masks_layout,
    render_masks,
    shared_path,
    write_masked,
    write_masks,
)
from tsv_bench.merging.outputs import WRITES, check_outputs, dense_layout, output_paths
from tsv_bench.methods.masked.masked_vector import MaskedVector
from tsv_bench.methods.served import made_up, served_by
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.integrity import check_contents
from tsv_bench.state_dicts.low_rank import PRECISIONS
from tsv_bench.state_dicts.open_vectors import (
    check_changes,
    check_tasks,
    named,
    open_task_vector,
    pair_of,
)
from tsv_bench.state_dicts.state_dict import ReadOnce, open_state_dict
from tsv_bench.state_dicts.writer import KEY, StateDictWriter
from tsv_bench.task_vectors.streaming import observer


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge has written, and what it took."""

    outputs: list[Path]
    num_bytes: int
    seconds: float
    peak_memory: int  # resident, bytes, of the process so far
    stored: str = ""  # a table of what compressed files store of each task


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
    factors of what TSV-C serves, or masks and what they share, in ``precision``. A method that
    serves one vector writes ``output``, another ``output``/<task>.safetensors. ``name`` and
    ``knobs`` go into the metadata.

    ValueError or OSError for anything wrong with the arguments or the files, before long work.
    """
    started = time.monotonic()
    _check_arguments(alpha, write, precision, finetuned)
    serve({})  # checks the knobs
    pretrained, output = Path(pretrained), Path(output)
    states = {
        name: named(name, partial(open_state_dict, path))
        for name, path in {"pretrained": pretrained, **finetuned}.items()
    }
    base = ReadOnce(states["pretrained"])
    open_vectors = {
        task: partial(open_task_vector, base, states[task], device) for task in finetuned
    }
    vectors = {task: named(task, open_one) for task, open_one in open_vectors.items()}
    kind = _kind(serve, finetuned, write)
    compressed = write == "compressed"
    paths = output_paths(output, base, finetuned, kind == "one", write)
    outputs = [*paths.values()]
    if kind == "masks" and compressed:
        outputs.append(shared_path(paths))
    check_outputs(outputs, states, overwrite, 0)
    layouts = {}
    if not compressed:
        layouts = {task: dense_layout(path, base, write) for task, path in paths.items()}
        check_outputs(outputs, states, overwrite, sum(x.num_bytes() for x in layouts.values()))

    with bars(progress):
        with tqdm(total=len(states), desc="checking", unit="file", disable=not progress) as bar:
            hashes = check_contents(states, bar.update)
        check_changes(base, vectors, hashes)
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
        metadata = {
            task: {KEY: json.dumps(about | ({"task": task} if task else {}))} for task in paths
        }
        if compressed:
            metadata = {
                task: {KEY: json.dumps(about | {"task": task, "precision": precision})}
                for task in paths
            }
        bar = partial(tqdm, unit="layer", disable=not progress)
        table = ""
        if kind == "masks" and compressed:
            plans = masks_layout(paths, base, vectors, PRECISIONS[precision])
            check_place(output, sum(layout.num_bytes() for layout in plans.values()))
            with bar(total=sum(map(len, plans[outputs[-1]].files.values())), desc="masks") as shown:
                stored = write_masks(served, plans, base, about, metadata, shown.update)
            table = render_masks(stored, outputs[-1].stat().st_size)
        elif compressed:
            plans = {
                task: plan_compressed(
                    path, base, vectors[task], states[task], served[task], PRECISIONS[precision]
                )
                for task, path in paths.items()
            }
            check_place(output, sum(plan.layout.num_bytes() for plan in plans.values()))
            table = render_stored(
                {
                    task: write_compressed(
                        plan, base, vectors[task], states[task], served[task], metadata[task],
                        partial(bar, desc=task),
                    )
                    for task, plan in plans.items()
                }
            )  # fmt: skip
        elif kind == "masks":
            with bar(total=len(served[next(iter(finetuned))]), desc="merging") as shown:
                write_masked(
                    served, paths, layouts, base, alpha, write, metadata, shown.update
                )  # fmt: skip
        else:
            for task, path in paths.items():
                vector = served[task if task is not None else next(iter(finetuned))]
                total = sum(map(len, layouts[task].files.values()))
                with (
                    StateDictWriter(path, layouts[task], metadata[task]) as writer,
                    bar(total=total, desc=task or "merging") as shown,
                ):
                    for layer, start, rows in served_rows(base, vector, alpha, write):
                        writer.write(layer, start, rows)
                        shown.update(start == 0)
    return Merged(
        outputs=outputs,
        num_bytes=sum(_size(path) for path in outputs),
        seconds=time.monotonic() - started,
        peak_memory=provenance.peak_memory(),
        stored=table,
    )


def _kind(serve: Callable, tasks: Iterable[str], write: str) -> str:
    """What the method serves, told by made-up tasks: "one" vector to all, "masks" of one,
    "factors", or "own", to each its own.

    ValueError when nothing of it is written compressed and that is asked for.
    """
    first, *others = made_up(serve, tasks).values()
    if isinstance(first, MaskedVector):
        return "masks"
    if hasattr(first, "factors"):
        return "factors"
    if write == "compressed":
        raise ValueError(
            "write=compressed stores the low-rank factors of TSV-C, or masks and the vector that "
            "they share, and this method has neither. Choose method=tsv_compress, a method of "
            "masks such as tall_mask_ta, or write=vector."
        )
    return "one" if all(vector is first for vector in others) else "own"


def _check_arguments(
    alpha: float, write: str, precision: str, finetuned: Mapping[str, Path | str]
) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ValueError(f"alpha={alpha!r} is not a number.")
    if write not in WRITES:
        raise ValueError(f"write={write!r} is unknown. There are: {', '.join(WRITES)}.")
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is unknown. There are: {', '.join(PRECISIONS)}.")
    check_tasks(finetuned)


@contextmanager
def bars(progress: bool) -> Iterator[None]:
    """Bars for the steps that a method takes before its first layer."""

    def bar(steps: Iterable, total: int, label: str) -> Iterable:
        # leave: the one of a step within another's goes when it is done.
        return tqdm(steps, total=total, desc=label, disable=not progress, leave=None)

    token = observer.set(bar)
    try:
        yield
    finally:
        observer.reset(token)


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
