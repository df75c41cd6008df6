"""Merge checkpoint files: open and check them, serve, write."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tsv_bench import __version__, bars, provenance
from tsv_bench.files import check_place
from tsv_bench.files.claim import claimed
from tsv_bench.merging.arguments import check_arguments, check_dtype
from tsv_bench.merging.dense_writer import DenseWriter
from tsv_bench.merging.outputs import check_outputs
from tsv_bench.merging.read_once import hashed_reading, reads_once
from tsv_bench.merging.scaling.layer_alphas import LayerAlphas
from tsv_bench.merging.scoring import CommandExaminer, ScoringCommand
from tsv_bench.merging.told.card import Card
from tsv_bench.merging.told.extent import extent_of
from tsv_bench.merging.writers import STORED, make_writer
from tsv_bench.methods.entrywise.lata_published import WeightedVector, Weighting
from tsv_bench.methods.forms import Shared
from tsv_bench.methods.needs import PRETRAINED
from tsv_bench.methods.served import form_by_trial, is_entrywise, served_by
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
from tsv_bench.state_dicts.writer import MADE_BY
from tsv_bench.task_vectors.streaming import observer
from tsv_bench.task_vectors.task_vector import Weights

log = logging.getLogger(__name__)


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
    pretrained: Path | str | None,
    finetuned: Mapping[str, Path | str],
    output: Path | str,
    *,
    alpha: float | LayerAlphas = 1.0,
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
    sees_weights: bool = False,
    name: str | None = None,
    knobs: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    card: Card | None = None,
    dtype: str | None = None,
    tokenizer_from: str | None = None,
    progress: bool = True,
) -> Merged:
    """Merge checkpoints by a method (its function, with its knobs bound) and write the result.

    Without ``pretrained`` the first fine-tuned one stands in for it, for methods that take a mean
    of models. ``write``: "model" writes pretrained + alpha * vector; "vector" the vector that is
    served; "compressed" low-rank factors (TSV-C) or bit masks and the vector that they share,
    stored in ``precision``; "lora" the vector times alpha as an adapter in peft's layout, whose
    factors have at most this ``rank``. A method that serves one vector writes ``output``, any other
    ``output``/<task>.safetensors. ``factors``: a cache of singular triplets. ``statistics``: kind
    -> task -> file, what the method needs beside task vectors. ``base``: what the instruct model
    ``pretrained`` was made from, for a method that takes the difference as ``instruction``.
    ``choices``: of entries that not all have. ``scoring``: a command that asks models, for a method
    that searches. ``sees_weights``: whether the method takes the pretrained weights, as
    ``pretrained``. ``name``, ``knobs`` and what ``more`` says go into the metadata. ``card``: that
    of merged folders. ``dtype``: the type that is written, ``tokenizer_from``: the task whose
    tokenizer is.

    Raises ValueError or OSError for anything wrong with the arguments or the files, before long
    work.
    """
    started = time.monotonic()
    alphas = alpha if isinstance(alpha, LayerAlphas) else LayerAlphas(default=alpha)
    check_arguments(alphas.default, write, precision, rank)
    check_tasks(finetuned)
    check_choices(choices, finetuned, write)
    check_dtype(dtype)
    given = {
        kind: open_statistics(kind, paths, finetuned) for kind, paths in (statistics or {}).items()
    }
    needed = [*given, *([] if base is None else ["instruction"])]
    needed += [PRETRAINED] if sees_weights else []
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
    if sees_weights:
        weights = Weights(inputs.pretrained, next(iter(inputs.vectors.values())), device)
        serve = partial(serve, **{PRETRAINED: weights})
    form = form_by_trial(serve, finetuned)
    inputs = inputs if write in STORED else inputs.once_each()
    of_layers = alphas.of(next(iter(inputs.vectors.values())))
    writer = make_writer(
        form, inputs, Path(output), write, precision, of_layers, overwrite, dtype, rank
    )
    if isinstance(writer, DenseWriter):
        if tokenizer_from is not None:
            writer.take_tokenizer(tokenizer_from, inputs.states[tokenizer_from].path)
        if card:
            writer.add_card(card)
    check_place(writer.outputs[0].parent, writer.num_bytes())
    bar = partial(bars.bar, disable=not progress)
    with ExitStack() as stack:
        for path in writer.outputs:
            stack.enter_context(claimed(path.resolve()))
        check_outputs(writer.outputs, writer.folders, inputs.states, overwrite)
        reading = None
        apart = examiner is not None or given or sees_weights
        if not apart and reads_once(serve, writer, inputs):
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
        if not needed and examiner is None and not is_entrywise(serve, finetuned):
            if line := extent_of(serve, inputs.base, inputs.vectors).line():
                log.info(line)
        served = served_by(serve, inputs.vectors, name)
        writer.plan(inputs, served)
        check_place(writer.outputs[0].parent, writer.num_bytes())
        about = {"method": name, "knobs": knobs, "write": write, "inputs": hashes, **(more or {})}
        if given:
            about["statistics"] = {k: {t: f.about for t, f in v.items()} for k, v in given.items()}
        if examiner:
            about["score"] = {"command": scoring.command, "seed": scoring.seed}
            check_place(writer.outputs[0].parent, 2 * writer.num_bytes())  # and a candidate
            examiner.begin(inputs, partial(write_candidate, inputs), [name, knobs, hashes])

        def metadata(final: bool) -> dict[str | None, dict[str, str]]:
            inputs_read = {"inputs": reading.finish()} if reading and final else {}
            return how_made(writer.paths, about | inputs_read, alphas.recorded, precision)

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
    tasks: Iterable[str | None], about: Mapping[str, Any], alpha: Any, precision: str
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
