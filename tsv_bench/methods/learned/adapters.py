"""One vector that all tasks share, and for each task a small adapter of the features it gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from jaxtyping import Float
from torch import Tensor

from tsv_bench.task_vectors.lazy import OtherLayers


@dataclass(frozen=True)
class Adapter:
    """What is taken from features z: up relu(down z), of low rank."""

    down: Float[Tensor, "rank dim"]
    up: Float[Tensor, "dim rank"]

    def __call__(self, features: Float[Tensor, "images dim"]) -> Float[Tensor, "images dim"]:
        """Return the adapted features."""
        return features - (features @ self.down.mT).relu() @ self.up.mT

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: str) -> "Adapter":
        """Return the same on a device."""
        return Adapter(**{name: tensor.to(device) for name, tensor in self.tensors.items()})


# What learns adapters: it takes the layers of the shared vector, and returns task -> its adapter.
Learn = Callable[[Mapping[str, Tensor]], Mapping[str, Adapter]]


class AdaptedVector(OtherLayers):
    """The vector that all tasks share, as one of them is served it: with an adapter of its own.

    ``learn`` is called once, by whoever asks for the first adapter, and is the same for all tasks.
    """

    def __init__(self, shared: Mapping, learn: Learn) -> None:
        super().__init__(shared)
        self.shared, self.learn = shared, learn
