"""The writer of each form of serving: dense weights, compressed files, adapters."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch

from tsv_bench.merging.dense_writer import DenseWriter
from tsv_bench.merging.lora_writer import LoraWriter, lora_paths
from tsv_bench.merging.low_rank_writer import LowRankWriter
from tsv_bench.merging.masked_writer import MaskedDenseWriter, MaskWriter
from tsv_bench.merging.outputs import Metadata, output_paths
from tsv_bench.methods.forms import Adapted, LowRank, Masked, Routed, Served, Shared
from tsv_bench.state_dicts.adapters.adapter import is_adapter
from tsv_bench.state_dicts.inputs import Inputs
from tsv_bench.state_dicts.writer import Shards

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


def make_writer(
    form: type[Served],
    inputs: Inputs,
    output: Path,
    write: str,
    precision: str,
    alpha: float | Mapping[str, float],
    overwrite: bool,
    dtype: str | None = None,
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
        if is_adapter(inputs.base.stored):
            raise ValueError(
                "write=lora writes an adapter upon a whole model, and pretrained= is one with an "
                "adapter, which peft would not find. Choose write=model, or write that model first "
                "and name it."
            )
        folders = lora_paths(output, inputs.finetuned, form is Shared)
        return LoraWriter(folders, rank, precision, alpha, overwrite)
    paths = output_paths(output, inputs.base, inputs.finetuned, form is Shared, write)
    if write == "compressed":
        return COMPRESSED[form](paths, precision, overwrite)
    written = dtype and getattr(torch, dtype)
    return DENSE.get(form, DenseWriter)(paths, inputs, write, alpha, overwrite, written)
