"""Write merged models or vectors, block by block, laid out like the pretrained checkpoint."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.merging.outputs import dense_shards
from tsv_bench.methods.forms import Served
from tsv_bench.state_dicts.inputs import Inputs
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.state_dicts.writer import StateDictWriter
from tsv_bench.task_vectors.streaming import stream


class DenseWriter:
    """Write "model", pretrained + alpha * vector, or "vector": one file or one for each task.

    ``paths``: task -> its output; the key None is the one output that all tasks share.
    """

    def __init__(
        self, paths: Mapping[str | None, Path], base: StateDict, write: str, alpha: float
    ) -> None:
        self.paths, self.write_what, self.alpha = paths, write, alpha
        self.outputs = list(paths.values())
        self.shards = {task: dense_shards(path, base, write) for task, path in paths.items()}

    def num_bytes(self) -> int:
        """Return the size of all outputs."""
        return sum(shards.num_bytes() for shards in self.shards.values())

    def plan(self, inputs: Inputs, served: Served) -> None:
        """Do nothing: all is known from the pretrained checkpoint."""

    def write(
        self,
        inputs: Inputs,
        served: Served,
        metadata: Mapping[str | None, Mapping[str, str]],
        bar: Callable,
    ) -> str:
        """Write the outputs. ``bar`` makes a progress bar of a total and a description."""
        for task, path in self.paths.items():
            shards = self.shards[task]
            vector = served[task if task is not None else next(iter(served))]
            with (
                StateDictWriter(path, shards, metadata[task]) as writer,
                bar(total=shards.num_layers, desc=task or "merging") as shown,
            ):
                for name, start, rows in self._rows(inputs.base, vector):
                    writer.write(name, start, rows)
                    shown.update(start == 0)
        return ""

    def _rows(
        self, base: StateDict, vector: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, int, Tensor]]:
        """Yield what is written, block by block: (name, first row, rows)."""
        for name, start, rows in stream(vector):
            rows = rows.cpu()
            if self.write_what == "model":
                weights = base.rows(name, start, start + (len(rows) if rows.ndim else 1))
                rows = at_least_float32(weights).add(rows, alpha=self.alpha)
            yield name, start, rows
        if self.write_what == "model":
            for name in base:
                if name not in vector:  # integer buffers
                    yield name, 0, base[name]
