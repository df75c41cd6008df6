"""Inputs of linear layers, summed up while a network runs: Gram matrices and means.

A layer is linear where one of the network's matrices is multiplied from the right: torch's Linear,
the fused projections of attention, a plain product as CLIP's visual.proj, GPT-2's Conv1D. All are
found by one mechanism: the products that torch computes while the network runs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.linalg.svd import lower_gram, symmetric
from tsv_bench.task_vectors.statistics import Gathered

# Products as torch dispatches them without gradients -> the place of the inputs in the arguments;
# the matrix is the one after.
PRODUCTS = {
    torch.ops.aten.mm.default: 0,
    torch.ops.aten.addmm.default: 1,
    torch.ops.aten.bmm.default: 0,  # the matrix is repeated for each input, by a stride of 0
}


class LinearInputs(TorchDispatchMode):
    """Sums over all inputs of each linear layer, while it is entered and gradients are off.

    ``kinds``: "inputs" (x^T x) or "means", or both. Sums are on the network's device, in float32
    at least.
    """

    def __init__(self, parameters: Mapping[str, Tensor], kinds: tuple[str, ...]) -> None:
        super().__init__()
        # By address: what torch multiplies is a view of the parameter, not the parameter itself.
        self._parameters = {p.data_ptr(): (n, p) for n, p in parameters.items() if p.ndim == 2}
        self._kinds = kinds
        self._sums: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
        self._gathered: dict[str, Gathered] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            x, matrix = args[PRODUCTS[func] :][:2]
            found = self._parameters.get(matrix.data_ptr())
            if matrix.ndim == 3 and matrix.stride(0) == 0:
                matrix = matrix[0]
            if found is not None and matrix.ndim == 2 and matrix.numel() == found[1].numel():
                self._add(*found, x.reshape(-1, x.shape[-1]), matrix)
        return func(*args, **(kwargs or {}))

    def _add(self, name: str, parameter: Tensor, x: Tensor, matrix: Tensor) -> None:
        # Strides tell a square matrix from its transpose.
        as_stored = (matrix.shape, matrix.stride()) == (parameter.shape, parameter.stride())
        axis = 0 if as_stored else 1
        before = self._gathered.get(name, Gathered(0, axis))
        if before.axis != axis:
            raise ValueError(
                f"{name!r} is multiplied from both sides: it has inputs along both of its axes."
            )
        x = at_least_float32(x)
        self._gathered[name] = Gathered(before.count + len(x), axis)
        for kind, sums in self._sums.items():
            term = lower_gram(x) if kind == "inputs" else x.sum(dim=0)
            sums[name] = sums[name].add_(term) if name in sums else term

    def statistics(self, kind: str, name: str) -> Tensor:
        """Return one layer's statistics of a kind. Raises KeyError if it had no inputs."""
        total = self._sums[kind][name]
        if kind == "means":
            return total / self._gathered[name].count
        return symmetric(total)

    @property
    def gathered(self) -> dict[str, Gathered]:
        """Layer -> how its statistics came about, in the order of the parameters."""
        names = [name for name, _ in self._parameters.values()]
        return {name: self._gathered[name] for name in names if name in self._gathered}


@contextmanager
def visible_products() -> Iterator[None]:
    """Let attention compute its products one by one, where `LinearInputs` sees them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
