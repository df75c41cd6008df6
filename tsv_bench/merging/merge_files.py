"""Merge checkpoint files: open and check them, serve, write."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tsv_bench import __version__, bars, provenance
from tsv_bench.files import check_place
from tsv_bench.files.claim import claimed
from tsv_bench.merging.arguments import check_arguments
from tsv_bench.merging.dense_writer import DenseWriter
from tsv_bench.merging.lora_writer import LoraWriter, lora_paths
from tsv_bench.merging.low_rank_writer import LowRankWriter
from tsv_bench.merging.masked_writer import MaskedDenseWriter, MaskWriter
from tsv_bench.merging.outputs import Metadata, check_outputs, output_paths
from tsv_bench.merging.read_once import hashed_reading, reads_once
from tsv_bench.merging.scoring import CommandExaminer, ScoringCommand
from tsv_bench.methods.entrywise.lata_published import WeightedVector, Weighting
from tsv_bench.methods.forms import Adapted, LowRank, Masked, Routed, Served, Shared
from tsv_bench.methods.served import form_by_trial, served_by
from tsv_bench.observation.statistics_file import (
    check_layers,
    check_owner,
    identity,
    open_statistics,
)
from tsv_bench.state_dicts.entries.choices import Choices
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.inputs import (
    Inputs,
    check_deltas,
    check_inputs,
    check_tasks,
    open_inputs,
    warn_of_repeated,
)
from tsv_bench.state_dicts.other_files import size_of
from tsv_bench.state_dicts.writer import MADE_BY, Shards
from tsv_bench.task_vectors.streaming import observer

# Form of serving -> its writer: of compressed files, and of dense ones if it is not `DenseWriter`.
COMPRESSED = {LowRank: LowRankWriter, Masked: MaskWriter}
DENSE = {Masked: MaskedDenseWriter}
STORED = ("compressed", "lora")  # what is written in a precision of its own
# What has no place in files of weights.
NO_FILES = {Adapted: "each task an adapter of features", Routed: "experts and a router"}


class Writer(Protocol):
    """What `merge` asks of a writer."""

    paths: Mapping[str | None, Path]  # task -> its output; None -> the one that all tasks share
    outputs: list[Path]  # these and what stands beside them
    folders: Mapping[Path, Shards]  # the files of those outputs that are folders

    def num_bytes(self) -> int:
        """Return an upper bound of the bytes of all outputs; 0 if only `plan` finds it."""

    def plan(self, inputs: Inputs, served: Served) -> None:
        """Find what the outputs hold, before the method computes anything."""

    def write(
        self,
        inputs: Inputs,
        served: Served,
        metadata: Metadata,
        bar: Callable,
    ) -> str:
        """Write the outputs; return a table of what compressed files store, else "".

        ``metadata``: returns that of each output in ``paths``. ``bar``: makes a progress bar of a
        total and a description.
        """


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge has written, and the time and memory that it took."""

    outputs: list[Path]
    num_bytes: int  # of all outputs
    seconds: float  # wall time
    peak_memory: int  # resident, bytes, of the process so far
    stored: str = ""  # a table of what compressed files store of each task
    weighting: Weighting | None = None  # how the method weighted blocks, if it did


def merge(
    serve: Callable[[Mapping], Mapping],
    pretrained: Path | str,
    finetuned: Mapping[str, Path | str],
    output: Path | str,
    *,
    alpha: float = 1.0,
    write: str = "model",
    precision: str = "float32",
    rank: int | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    factors: FactorCache | None = None,
    statistics: Mapping[str, Mapping[str, Path | str]] | None = None,
    base: Path | str | None = None,
    choices: Choices = Choices(),  # noqa: B008, it is frozen
    scoring: ScoringCommand | None = None,
    name: str | None = None,
    knobs: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Merged:
    """Merge checkpoints by a method (its function, with its knobs bound) and write the result.

    ``write``: "model" writes pretrained + alpha * vector; "vector" the vector that is served;
    "compressed" low-rank factors (TSV-C) or bit masks and the vector that they share, stored in
    ``precision``; "lora" the vector times alpha as an adapter in peft's layout, whose factors have
    at most this ``rank``. A method that serves one vector writes ``output``, any other
    ``output``/<task>.safetensors. ``factors``: a cache of singular triplets.
    ``statistics``: kind -> task -> file, what the method needs beside task vectors. ``base``: what
    the instruct model ``pretrained`` was made from, for a method that takes the difference as
    ``instruction``. ``choices``: of entries that not all have. ``scoring``: a command that asks
    models, for a method that searches. ``name`` and ``knobs`` go into the metadata.

    Raises ValueError or OSError for anything wrong with the arguments or the files, before long
    work.
    """
    started = time.monotonic()
    check_arguments(alpha, write, precision, rank)
    check_tasks(finetuned)
    check_choices(choices, finetuned, write)
    given = {
        kind: open_statistics(kind, paths, finetuned) for kind, paths in (statistics or {}).items()
    }
    needed = [*given, *([] if base is None else ["instruction"])]
    name = name or getattr(getattr(serve, "func", serve), "__name__", str(serve))
    knobs = dict(knobs if knobs is not None else getattr(serve, "keywords", {}))
    examiner = CommandExaminer(scoring, Path(output)) if scoring else None
    serve = partial(serve, bench=examiner) if examiner else serve
    serve({}, **{argument: {} for argument in needed})  # raises ValueError for a wrong knob

    inputs = open_inputs(pretrained, finetuned, device, base, choices)
    for kind, of_kind in given.items():
        for task, file in of_kind.items():
            check_layers(file, kind, task, inputs.vectors[task])
    serve = partial(serve, **given) if given else serve
    serve = partial(serve, instruction=inputs.instruction) if base is not None else serve
    form = form_by_trial(serve, finetuned)
    inputs = inputs if write in STORED else inputs.once_each()
    writer = make_writer(form, inputs, Path(output), write, precision, alpha, overwrite, rank)
    check_place(writer.outputs[0].parent, writer.num_bytes())
    bar = partial(bars.bar, disable=not progress)
    with ExitStack() as stack:
        for path in writer.outputs:
            stack.enter_context(claimed(path.resolve()))
        check_outputs(writer.outputs, writer.folders, inputs.states, overwrite)
        reading = None
        if examiner is None and not given and reads_once(serve, writer, inputs):
            reading = stack.enter_context(hashed_reading(inputs))
            check_deltas(inputs)
            hashes = reading.unknown()
        else:
            with bar(total=len(inputs.states), desc="checking", unit="file") as files:
                inputs, hashes = check_inputs(inputs, factors, files.update)
        for kind, of_kind in given.items():
            for task, file in of_kind.items():
                check_owner(file, kind, task, identity(hashes[task]))
        stack.enter_context(watching(progress))
        served = served_by(serve, inputs.vectors, name)
        writer.plan(inputs, served)
        check_place(writer.outputs[0].parent, writer.num_bytes())
        about = {"method": name, "knobs": knobs, "write": write, "inputs": hashes}
        if given:
            about["statistics"] = {k: {t: f.about for t, f in v.items()} for k, v in given.items()}
        if examiner:
            about["score"] = {"command": scoring.command, "seed": scoring.seed}
            check_place(writer.outputs[0].parent, 2 * writer.num_bytes())  # and a candidate
            examiner.begin(inputs, partial(write_candidate, inputs), [name, knobs, hashes])

        def metadata(final: bool) -> dict[str | None, dict[str, str]]:
            inputs_read = {"inputs": reading.finish()} if reading and final else {}
            return how_made(writer.paths, about | inputs_read, alpha, precision)

        table = writer.write(inputs, served, metadata, partial(bar, unit="layer"))
        if reading:
            warn_of_repeated(inputs, reading.finish())
        if examiner:
            examiner.end()
    vector = next(iter(served.vectors.values()))
    return Merged(
        outputs=writer.outputs,
        num_bytes=sum(map(size_of, writer.outputs)),
        seconds=time.monotonic() - started,
        peak_memory=provenance.peak_memory(),
        stored=table,
        weighting=vector.weighting if isinstance(vector, WeightedVector) else None,
    )


def make_writer(
    form: type[Served],
    inputs: Inputs,
    output: Path,
    write: str,
    precision: str,
    alpha: float,
    overwrite: bool,
    rank: int | None = None,
) -> Writer:
    """Return the writer of a form of serving. Raises ValueError if it has none, or no such one."""
    if what := NO_FILES.get(form):
        raise ValueError(
            f"this method serves {what} beside one merged vector, and there are no files of it to "
            f"write. tsv-bench evaluates it."
        )
    if write == "compressed" and form not in COMPRESSED:
        raise ValueError(
            "write=compressed stores the low-rank factors of TSV-C, or masks and the vector that "
            "they share, and this method has neither. Choose method=tsv_compress, a method of "
            "masks such as tall_mask_ta, or write=vector."
        )
    if write == "lora":
        folders = lora_paths(output, inputs.finetuned, form is Shared)
        return LoraWriter(folders, rank, precision, alpha, overwrite)
    paths = output_paths(output, inputs.base, inputs.finetuned, form is Shared, write)
    if write == "compressed":
        return COMPRESSED[form](paths, precision, overwrite)
    return DENSE.get(form, DenseWriter)(paths, inputs, write, alpha, overwrite)


def check_choices(choices: Choices, tasks: Iterable[str], write: str) -> None:
    """Raise ValueError for a choice that is unknown, or that a compressed file cannot hold."""
    choices.check(list(tasks))
    if write == "compressed" and (choices.rest_from or choices.embeddings):
        raise ValueError(
            "write=compressed stores what is added to the pretrained checkpoint as it is: without "
            "rest_from= and embeddings=."
        )


def write_candidate(inputs: Inputs, vector: Mapping, folder: Path) -> Path:
    """Write the model that a vector makes, in the form of the pretrained one; return its path."""
    path = folder / ("model" if inputs.base.path.is_dir() else "model.safetensors")
    writer = DenseWriter({None: path}, inputs, "model", 1.0, False)
    served = Shared(dict.fromkeys(inputs.vectors, vector), inputs.vectors, "a candidate")
    writer.write(inputs, served, lambda final: {None: {}}, partial(bars.bar, disable=True))
    return path


def how_made(
    tasks: Iterable[str | None], about: Mapping[str, Any], alpha: float, precision: str
) -> dict[str | None, dict[str, str]]:
    """Return the metadata of each task's output: ``about``, and what else determines its values."""
    about = {**about, "version": __version__, "commit": provenance.commit()}
    if about["write"] in ("model", "lora"):
        about["alpha"] = alpha

    def of_task(task: str | None) -> dict[str, Any]:
        own = {"task": task} if task else {}
        stored = {"precision": precision} if about["write"] in STORED else {}
        return about | own | stored

    return {task: {MADE_BY: json.dumps(of_task(task))} for task in tasks}


@contextmanager
def watching(progress: bool) -> Iterator[None]:
    """Show a progress bar for the steps that a method takes before its first layer."""

    def bar(steps: Iterable, total: int, label: str) -> Iterable:
        # leave=None: tqdm removes a bar within another's at its end.
        return bars.bar(steps, total=total, desc=label, disable=not progress, leave=None)

    token = observer.set(bar)
    try:
        yield
    finally:
        observer.reset(token)
