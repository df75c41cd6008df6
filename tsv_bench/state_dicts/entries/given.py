"""Tensors in memory as a checkpoint, so that they are compared and merged as files are."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.files.content import Stamp
from tsv_bench.state_dicts.entries.wrappers import tensors_of, weights_in
from tsv_bench.state_dicts.safetensors_file import Spec
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.lazy import LazyMapping, as_lazy

IN_MEMORY = Path("a state dict in memory")  # stands in messages where a file's path would


class Given:
    """Tensors in memory, with what an open file of weights offers."""

    path, header, stamp = IN_MEMORY, None, Stamp(0, 0, 0)

    def __init__(self, tensors: LazyMapping) -> None:
        self.metadata: dict[str, str] = {}
        self.specs = {name: Spec(tensors.dtype(name), tensors.shape(name)) for name in tensors}
        self._tensors = tensors

    def read(self, name: str, start: int, out: Tensor) -> None:
        """Fill ``out`` with the entry's rows from ``start`` on."""
        rows = self._tensors.rows(name, start, start + len(out)).detach()
        out.copy_(rows if rows.ndim else rows.reshape(1))

    def check_unchanged(self) -> None:
        """Do nothing: what is in memory is the caller's to leave alone."""


def given_state_dict(content: Mapping) -> StateDict:
    """Return a checkpoint of tensors in memory: a state dict, or one within other dicts.

    Nothing is copied before it is read. Raises ValueError if it holds no tensor with a name, or
    one that is not dense.
    """
    if isinstance(content, StateDict):
        return content
    if isinstance(content, dict):
        found = tensors_of(weights_in(IN_MEMORY, content))
        if not found:
            key, value = next(iter(content.items()), ("nothing", None))
            raise ValueError(f"{key!r} is a {type(value).__name__} and no tensor.")
        for name, tensor in found.items():
            if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
                raise ValueError(
                    f"{name!r} is a {'meta' if tensor.is_meta else 'sparse or quantized'} tensor; "
                    f"only ordinary (dense) ones with values are merged."
                )
        content = found
    return StateDict(IN_MEMORY, [Given(as_lazy(content))])
