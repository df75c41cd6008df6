"""Coefficients of the task vectors in one residual block, and their gradients."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

PER = ("entry", "tensor", "task")


class BlockCoefficients:
    """A coefficient for each entry, tensor or task; the block's delta is their weighted sum.

    ``deltas``: for each task, layer -> its delta in the block. `parameters` are the coefficients:
    with "entry" one tensor for each layer and task, with "tensor" one for each layer [tasks], with
    "task" a single one [tasks].
    """

    def __init__(self, deltas: Sequence[Mapping[str, Tensor]], per: str, start: float) -> None:
        self._deltas, self._per, self.names = deltas, per, list(deltas[0])
        first = deltas[0][self.names[0]]
        if per == "entry":
            self._places = [(name, t) for name in self.names for t in range(len(deltas))]
            self.parameters = [torch.full_like(deltas[t][name], start) for name, t in self._places]
        else:
            count = len(self.names) if per == "tensor" else 1
            self.parameters = [first.new_full((len(deltas),), start) for _ in range(count)]

    def merged(self) -> dict[str, Tensor]:
        """Return layer -> the sum of the deltas, each times its coefficients."""
        if self._per == "entry":
            found: dict[str, Tensor] = {}
            for (name, task), coefficients in zip(self._places, self.parameters, strict=True):
                delta = self._deltas[task][name]
                if name in found:
                    found[name].addcmul_(coefficients, delta)
                else:
                    found[name] = coefficients * delta
            return found
        return {
            name: sum(
                c * of_task[name] for c, of_task in zip(self._of(n), self._deltas, strict=True)
            )
            for n, name in enumerate(self.names)
        }

    def _of(self, number: int) -> Tensor:
        return self.parameters[number if self._per == "tensor" else 0]

    def gradient(self, number: int, gradients: Mapping[str, Tensor]) -> Tensor:
        """Return a parameter's gradient, given those of the block's weights."""
        if self._per == "entry":
            name, task = self._places[number]
            return gradients[name] * self._deltas[task][name]
        names = [self.names[number]] if self._per == "tensor" else self.names
        products = [
            sum((gradients[name] * of_task[name]).sum() for name in names)
            for of_task in self._deltas
        ]
        return torch.stack(products)
