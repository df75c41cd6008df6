"""Write merged models or vectors, block by block, with the pretrained checkpoint's shards."""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.merging.outputs import Metadata
from tsv_bench.merging.told.card import FILE, Card
from tsv_bench.methods.forms import Served
from tsv_bench.state_dicts.entries.kinds import is_running
from tsv_bench.state_dicts.entries.quantized import named
from tsv_bench.state_dicts.inputs import Inputs
from tsv_bench.state_dicts.other_files import check_sub_folders, own_files
from tsv_bench.state_dicts.overflow import fitted
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.state_dicts.writer import Shards, StateDictWriter
from tsv_bench.task_vectors.streaming import stream

log = logging.getLogger(__name__)
CONFIG = "config.json"
# Beginnings of the names of a tokenizer's files.
TOKENIZER = (
    "tokenizer", "vocab", "merges.txt", "special_tokens_map", "added_tokens", "spiece",
    "sentencepiece", "chat_template", "bpe.codes", "source.spm", "target.spm", "normalizer.json",
)  # fmt: skip


class DenseWriter:
    """Write "model", pretrained + alpha * vector, or "vector": one output or one for each task."""

    def __init__(
        self,
        paths: Mapping[str | None, Path],
        inputs: Inputs,
        write: str,
        alpha: float | Mapping[str, float],
        overwrite: bool,
        dtype: torch.dtype | None = None,
    ) -> None:
        """``alpha``: one for all layers, or layer -> its own. ``dtype``: of what is written."""
        base = inputs.base
        self.infinite: set[str] = set()  # entries with infinities that all checkpoints have
        self.paths, self.write_what, self.alpha, self.overwrite = paths, write, alpha, overwrite
        self.outputs, self.dtype = list(paths.values()), dtype
        self.card: Card | None = None
        self.config = base.path / CONFIG
        folders = any(path.suffix != ".safetensors" for path in self.outputs)
        beside = own_files(base.path, base.other_files) if folders else []
        if write == "model":
            tuned = {task: state.path for task, state in inputs.finetuned.items()}
            check_sub_folders(base.path, beside, tuned)
        merged = {*inputs.pretrained, *inputs.tied}
        self.shards = {
            task: dense_shards(path, base, write, beside, merged, dtype)
            for task, path in paths.items()
        }
        self.folders = {paths[t]: shards for t, shards in self.shards.items() if shards.folder}
        if dtype and any(path.name == CONFIG for path in beside):
            others = [path for path in beside if path.name != CONFIG]
            for task in self.shards:
                self._replace(task, others, (CONFIG,))

    def add_card(self, card: Card) -> None:
        """Write a card into each output that is a folder, in place of the pretrained one's."""
        for task, shards in self.shards.items():
            if shards.folder and self.write_what == "model":
                others = tuple(path for path in shards.other_files if path.name != FILE)
                self._replace(task, others, (*shards.texts, FILE))
        self.card = card

    def take_tokenizer(self, task: str, folder: Path) -> None:
        """Copy a folder's tokenizer, in place of the pretrained one's, into output folders.

        Raises ValueError if there is none, or no output is a folder.
        """
        own = [p for p in sorted(folder.iterdir()) if is_tokenizer(p)] if folder.is_dir() else []
        if not own or not self.folders:
            why = "the output is a file" if own else f"{folder} has no file of a tokenizer"
            raise ValueError(
                f"tokenizer_from={task}: {why}. Tokenizers go from a task's folder, in Hugging "
                f"Face's layout, into an output that is a folder."
            )
        own = own_files(folder, own)
        for written, shards in self.shards.items():
            others = [path for path in shards.other_files if not is_tokenizer(path)]
            self._replace(written, (*others, *own), shards.texts)

    def _replace(self, task: str | None, others: Iterable[Path], texts: tuple[str, ...]) -> None:
        shards = replace(self.shards[task], other_files=tuple(others), texts=texts)
        self.shards[task] = self.folders[self.paths[task]] = shards

    def finish(self, task: str | None, writer: StateDictWriter, metadata: Mapping) -> None:
        """Write what is known once all has been read: the metadata, and the card."""
        writer.restate(metadata[task])
        if CONFIG in self.shards[task].texts:
            writer.write_text(CONFIG, with_dtype(self.config, self.dtype))
        if self.card and FILE in self.shards[task].texts:
            name = self.paths[task].resolve().name
            writer.write_text(FILE, self.card.text(metadata[task], name))

    def num_bytes(self) -> int:
        return sum(shards.num_bytes() for shards in self.shards.values())

    def plan(self, inputs: Inputs, served: Served) -> None:
        """Do nothing: the pretrained checkpoint says all."""

    def write(
        self,
        inputs: Inputs,
        served: Served,
        metadata: Metadata,
        bar: Callable,
    ) -> str:
        about = metadata(final=False)
        for task, path in self.paths.items():
            shards = self.shards[task]
            vector = served[task if task is not None else next(iter(served))]
            with (
                StateDictWriter(path, shards, about[task], overwrite=self.overwrite) as writer,
                bar(total=shards.num_layers, desc=task or "merging") as layers,
            ):
                for name, start, rows in stream(vector, partial(self._finish, inputs, task)):
                    for each in (name, *copies(inputs, name)):
                        writer.write(each, start, rows, fits=True)
                        layers.update(start == 0)
                for name in inputs.base if self.write_what == "model" else ():
                    if (
                        name not in vector and name not in inputs.tied
                    ):  # integers, what not all have
                        writer.write(name, 0, inputs.base[name])
                        layers.update()
                self.finish(task, writer, metadata(final=True))
        self.say(inputs)
        return ""

    def say(self, inputs: Inputs) -> None:
        """Log which entries are not what the method and alpha make of them."""
        if self.write_what == "model" and (running := list(filter(is_running, inputs.pretrained))):
            whose = "averaged over the tasks" if None in self.paths else "each task's own"
            log.info(f"{named(running)}: running statistics are {whose}, whatever the method.")
        if self.infinite:
            log.info(
                f"{named(sorted(self.infinite))}: NaN or infinity that all checkpoints have alike "
                f"stays."
            )

    def _finish(
        self, inputs: Inputs, task: str | None, name: str, start: int, rows: Tensor
    ) -> Tensor:
        """Return what the file holds of a vector's rows: weights or rows, in the base's type."""
        dtype = self.dtype or inputs.base.dtype(name)
        if self.write_what != "model":
            return fitted(name, rows, dtype).cpu()
        stop = start + (len(rows) if rows.ndim else 1)
        weights = inputs.base.wide_rows(name, start, stop, rows.device)
        if is_running(name):  # a variance below zero, as alpha * a sum gives, makes NaN
            vectors = inputs.vectors.values() if task is None else [inputs.vectors[task]]
            deltas = [vector.rows(name, start, stop) for vector in vectors]
            rows = weights + sum(delta.to(weights) for delta in deltas) / len(deltas)
        else:
            alpha = self.alpha[name] if isinstance(self.alpha, Mapping) else self.alpha
            rows = weights.add(rows, alpha=alpha)
        try:
            return fitted(name, rows, dtype).cpu()
        except ValueError:
            stays = ~weights.isfinite()
            fitted(name, rows.masked_fill(stays, 0), dtype)
            self.infinite.add(name)
            return weights.where(stays, rows).to(dtype).cpu()


def copies(inputs: Inputs, name: str) -> list[str]:
    """Return the names of the entries that are tied to this one."""
    return [other for other, first in inputs.tied.items() if first == name]


def with_dtype(path: Path, dtype: torch.dtype) -> str:
    """Return a config.json that names the type that is written. Raises ValueError if it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        key = "dtype" if "dtype" in content else "torch_dtype"  # transformers 5 and before
        content[key] = str(dtype).removeprefix("torch.")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no configuration of a model: {error}.") from error
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def is_tokenizer(path: Path) -> bool:
    """Return whether a file beside weights is part of a tokenizer, by its name."""
    return path.name.startswith(TOKENIZER)


def dense_shards(
    path: Path,
    pretrained: StateDict,
    write: str,
    beside: Sequence[Path],
    merged: Collection[str],
    dtype: torch.dtype | None = None,
) -> Shards:
    """Return the files of one output, with the pretrained checkpoint's order, dtypes and shards.

    ``beside``: what is copied into an output that is a folder. A vector has entries for what is
    ``merged``, and none for integer buffers; a model has the pretrained ones. Raises ValueError if
    two shards would have one name.
    """

    def written(name: str) -> torch.dtype:
        own = pretrained.dtype(name)
        return dtype if dtype and own.is_floating_point else own

    def specs(names: Iterable[str]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        return {
            name: (written(name), tuple(pretrained.shape(name)))
            for name in names
            if write == "model" or (name in merged and pretrained.dtype(name).is_floating_point)
        }

    if path.suffix == ".safetensors":
        return Shards({path.name: specs(pretrained)})
    sources: dict[str, str] = {}
    for file in pretrained.shards:
        if (other := sources.setdefault(_safetensors(file), file)) != file:
            raise ValueError(
                f"{other!r} and {file!r} in {pretrained.path} would both be written as "
                f"{_safetensors(file)!r}. Rename one of them, in the index too."
            )
    files = {target: specs(pretrained.shards[file]) for target, file in sources.items()}
    index = pretrained.index_name
    return Shards(
        {file: params for file, params in files.items() if params},
        index_name=index and _safetensors(index.removesuffix(".index.json")) + ".index.json",
        other_files=tuple(beside),
        folder=True,
    )


def _safetensors(name: str) -> str:
    """Return the safetensors file's name that Hugging Face's loaders expect for this one."""
    stem = name.rsplit(".", 1)[0]
    return stem.replace("pytorch_model", "model") + ".safetensors"
