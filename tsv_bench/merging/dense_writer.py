"""Write merged models or vectors, block by block, with the pretrained checkpoint's shards."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.merging.outputs import Metadata
from tsv_bench.methods.forms import Served
from tsv_bench.state_dicts.inputs import Inputs
from tsv_bench.state_dicts.other_files import own_files
from tsv_bench.state_dicts.overflow import fitted
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.state_dicts.writer import Shards, StateDictWriter
from tsv_bench.task_vectors.streaming import stream


class DenseWriter:
    """Write "model", pretrained + alpha * vector, or "vector": one output or one for each task."""

    def __init__(
        self,
        paths: Mapping[str | None, Path],
        base: StateDict,
        write: str,
        alpha: float,
        overwrite: bool,
    ) -> None:
        self.paths, self.write_what, self.alpha, self.overwrite = paths, write, alpha, overwrite
        self.outputs = list(paths.values())
        folders = any(path.suffix != ".safetensors" for path in self.outputs)
        beside = own_files(base.path, base.other_files) if folders else []
        self.shards = {
            task: dense_shards(path, base, write, beside) for task, path in paths.items()
        }
        self.folders = {paths[t]: shards for t, shards in self.shards.items() if shards.folder}

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
                for name, start, rows in stream(vector, partial(self._finish, inputs.base)):
                    writer.write(name, start, rows, fits=True)
                    layers.update(start == 0)
                for name in inputs.base if self.write_what == "model" else ():
                    if name not in vector:  # integer buffers
                        writer.write(name, 0, inputs.base[name])
                        layers.update()
                writer.restate(metadata(final=True)[task])
        return ""

    def _finish(self, base: StateDict, name: str, start: int, rows: Tensor) -> Tensor:
        """Return what the file holds of a vector's rows: weights or rows, in the base's type."""
        if self.write_what == "model":
            stop = start + (len(rows) if rows.ndim else 1)
            weights = base.wide_rows(name, start, stop, rows.device)
            rows = weights.add(rows, alpha=self.alpha)
        return fitted(name, rows, base.dtype(name)).cpu()


def dense_shards(path: Path, pretrained: StateDict, write: str, beside: Sequence[Path]) -> Shards:
    """Return the files of one output, with the pretrained checkpoint's order, dtypes and shards.

    ``beside``: what is copied into an output that is a folder. A vector has no entry for integer
    buffers; a model has the pretrained ones. Raises ValueError if two shards would have one name.
    """

    def specs(names: Iterable[str]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        return {
            name: (pretrained.dtype(name), tuple(pretrained.shape(name)))
            for name in names
            if write == "model" or pretrained.dtype(name).is_floating_point
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
