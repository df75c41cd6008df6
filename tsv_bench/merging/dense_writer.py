"""Write a merged vector, or a model, block by block."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.streaming import stream


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
