"""Merge checkpoint files: check, open, serve, write."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tsv_bench import __version__, provenance
from tsv_bench.files import check_place
from tsv_bench.merging.dense_writer import DenseWriter
from tsv_bench.merging.low_rank_writer import LowRankWriter
from tsv_bench.merging.masked_writer import MaskedDenseWriter, MaskWriter
from tsv_bench.merging.outputs import WRITES, check_outputs, output_paths
from tsv_bench.methods.forms import LowRank, Masked, Served, Shared
from tsv_bench.methods.served import form_by_trial, served_by
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.inputs import Inputs, check_inputs, check_tasks, open_inputs
from tsv_bench.state_dicts.low_rank import PRECISIONS
from tsv_bench.state_dicts.writer import MADE_BY
from tsv_bench.task_vectors.streaming import observer

# What writes each form of serving: as compressed files, and dense where not by `DenseWriter`.
COMPRESSED = {LowRank: LowRankWriter, Masked: MaskWriter}
DENSE = {Masked: MaskedDenseWriter}


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

    ``write``: "model" is pretrained + alpha * vector; "vector" the vector that is served;
    "compressed" low-rank factors (TSV-C) or bit masks and the vector that they share, stored in
    ``precision``. A method that serves one vector writes ``output``, any other
    ``output``/<task>.safetensors. ``name`` and ``knobs`` go into the metadata.

    Raises ValueError or OSError for anything wrong with the arguments or the files, before long
    work.
    """
    started = time.monotonic()
    _check_arguments(alpha, write, precision, finetuned)
    serve({})  # checks the knobs
    inputs = open_inputs(pretrained, finetuned, device)
    form = form_by_trial(serve, finetuned)
    output = Path(output)
    writer = make_writer(form, inputs, output, write, precision, alpha)
    check_outputs(writer.outputs, inputs.states, overwrite, writer.num_bytes())

    with bars(progress):
        with tqdm(
            total=len(inputs.states), desc="checking", unit="file", disable=not progress
        ) as bar:
            inputs, hashes = check_inputs(inputs, factors, bar.update)
        about = {
            "method": name or getattr(getattr(serve, "func", serve), "__name__", str(serve)),
            "knobs": dict(knobs if knobs is not None else getattr(serve, "keywords", {})),
            "write": write,
            "inputs": hashes,
            "version": __version__,
            "commit": provenance.commit(),
        }
        if write == "model":
            about["alpha"] = alpha
        metadata = {
            task: {
                MADE_BY: json.dumps(
                    about
                    | ({"task": task} if task else {})
                    | ({"precision": precision} if write == "compressed" else {})
                )
            }
            for task in writer.paths
        }
        served = served_by(serve, inputs.vectors, about["method"])
        writer.plan(inputs, served)
        check_place(writer.outputs[0].parent, writer.num_bytes())
        bar = partial(tqdm, unit="layer", disable=not progress)
        table = writer.write(inputs, served, metadata, bar)
    return Merged(
        outputs=writer.outputs,
        num_bytes=sum(_size(path) for path in writer.outputs),
        seconds=time.monotonic() - started,
        peak_memory=provenance.peak_memory(),
        stored=table,
    )


def make_writer(
    form: type[Served], inputs: Inputs, output: Path, write: str, precision: str, alpha: float
) -> DenseWriter | LowRankWriter | MaskWriter:
    """Return what writes this form of serving. Raises ValueError if it has no compressed files."""
    if write == "compressed" and form not in COMPRESSED:
        raise ValueError(
            "write=compressed stores the low-rank factors of TSV-C, or masks and the vector that "
            "they share, and this method has neither. Choose method=tsv_compress, a method of "
            "masks such as tall_mask_ta, or write=vector."
        )
    paths = output_paths(output, inputs.base, inputs.finetuned, form is Shared, write)
    if write == "compressed":
        return COMPRESSED[form](paths, precision)
    return DENSE.get(form, DenseWriter)(paths, inputs.base, write, alpha)


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
