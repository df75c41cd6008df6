"""Coefficients of the task vectors in one residual block, moved by Adam."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.learned.learning import BETAS, EPS, Adam
from tsv_bench.task_vectors.lazy import BLOCK, LazyMapping, widest_dtype

PER = ("entry", "tensor", "task")


class Block:
    """The layers of a block, one after another in a flat tensor [entries]."""

    def __init__(self, shapes: Mapping[str, torch.Size]) -> None:
        self._shapes = shapes
        self.sizes = [shape.numel() for shape in shapes.values()]

    def layers(self, flat: Float[Tensor, " entries"]) -> dict[str, Tensor]:
        """Return views of a flat tensor, by name."""
        parts = zip(self._shapes.items(), flat.split(self.sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    def flat(self, layers: Mapping[str, Tensor]) -> Float[Tensor, " entries"]:
        """Return layers as one flat tensor."""
        return torch.cat([layers[name].flatten() for name in self._shapes])

    def read(self, vectors: Sequence[LazyMapping], device: str) -> Float[Tensor, "tasks entries"]:
        """Return the deltas of all tasks, read one layer at a time into one tensor."""
        types = (widest_dtype(vectors, name) for name in self._shapes)
        dtype = torch.float64 if torch.float64 in types else torch.float32
        found = torch.empty(len(vectors), sum(self.sizes), dtype=dtype, device=device)
        for vector, of_task in zip(vectors, found, strict=True):
            for name, layer in self.layers(of_task).items():
                layer.copy_(vector[name])
        return found


class EntryCoefficients:
    """A coefficient for each entry of each task's delta, of which only the result is in memory.

    Where g is the gradient of a weight, that of the coefficient of a delta d is d g. Adam's moments
    of it are d m and d^2 v, m and v those of g, so that one pair of moments is enough for all
    tasks. A coefficient moves by d m / (|d| sqrt(v) + eps) times the rate, and the weight by d
    times that. So `merged`, the sum of the deltas times their coefficients, is moved in place of
    the coefficients.
    """

    def __init__(
        self, deltas: Float[Tensor, "tasks entries"], start: float, learning_rate: float
    ) -> None:
        """``deltas`` are taken over: magnitudes take their place."""
        self.merged: Float[Tensor, " entries"] = start * deltas.sum(dim=0)
        self._magnitudes, self._rate, self._count = deltas.abs_(), learning_rate, 0
        self._mean = torch.zeros_like(self.merged)
        self._square = torch.zeros_like(self.merged)

    @torch.no_grad()
    def step(self, gradient: Float[Tensor, " entries"]) -> None:
        """Move every coefficient."""
        self._count += 1
        first, second = (1 - beta**self._count for beta in BETAS)
        self._mean.lerp_(gradient, 1 - BETAS[0])
        self._square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        of_all = (self.merged, self._mean, self._square, self._magnitudes)
        size = max(1, BLOCK // len(self._magnitudes))  # columns that fit a core's cache
        for merged, mean, square, d in zip(*(x.split(size, dim=-1) for x in of_all), strict=True):
            lengths = (d * (square / second).sqrt_()).add_(EPS)
            # In this order, as a square may vanish.
            moves = torch.div(d, lengths, out=lengths).mul_(d).sum(dim=0)
            merged.addcmul_(mean, moves, value=-self._rate / first)


class SharedCoefficients:
    """A coefficient for each task and layer, or for each task."""

    def __init__(
        self,
        deltas: Float[Tensor, "tasks entries"],
        sizes: Sequence[int],
        start: float,
        learning_rate: float,
    ) -> None:
        """``sizes``: how many entries, one after another, have the same coefficients."""
        self._deltas = deltas.split(list(sizes), dim=1)
        self._raw = torch.full(
            (len(sizes), len(deltas)), start, dtype=torch.float64, device=deltas.device
        )
        self._adam = Adam([self._raw], learning_rate)

    @property
    def merged(self) -> Float[Tensor, " entries"]:
        """The sum of the deltas, each times its coefficients."""
        return torch.cat([c.to(d) @ d for c, d in zip(self._raw, self._deltas, strict=True)])

    @torch.no_grad()
    def step(self, gradient: Float[Tensor, " entries"]) -> None:
        """Move every coefficient: its gradient is the inner product of delta and gradient."""
        parts = gradient.split([d.shape[1] for d in self._deltas])
        products = [d @ g for d, g in zip(self._deltas, parts, strict=True)]
        self._raw.grad = torch.stack(products).double()
        self._adam.step()


def block_coefficients(
    block: Block,
    deltas: Float[Tensor, "tasks entries"],
    per: str,
    *,
    start: float,
    learning_rate: float,
) -> EntryCoefficients | SharedCoefficients:
    """Return the coefficients for each ``per`` of a block; its ``deltas`` are taken over."""
    if per == "entry":
        return EntryCoefficients(deltas, start, learning_rate)
    sizes = block.sizes if per == "tensor" else [sum(block.sizes)]
    return SharedCoefficients(deltas, sizes, start, learning_rate)
