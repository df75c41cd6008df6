"""What a routed method serves: a vector that experts share, one expert a task, and a router."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.routed.experts import Experts, Gates
from tsv_bench.task_vectors.lazy import LazyMapping, OtherLayers, Part, stacked

READS = ("zero_shot", "shared")  # whose features a router reads: the pretrained network's, or what
# the shared vector makes of it


class Router(Protocol):
    """Tells for images how much each task's expert counts."""

    tasks: Sequence[str]
    # Whose features it reads (`READS`); None: inputs of layers, while the network runs.
    reads: str | None
    # What experts add to linear layers; None: each image is served the whole vector of the task
    # that counts most.
    experts: Experts | None

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its weights, by name."""

    def gates(
        self, features: Float[Tensor, "images dim"] | None
    ) -> Float[Tensor, "images tasks"] | Gates:
        """Return how much the experts count, or gates that find it in each layer.

        ``features``: those that it reads, not normalized; None if it reads none.
        """


@dataclass(frozen=True)
class Routing:
    """How a method routes: what is shared, what is each task's own, and how the router is made.

    ``own`` takes the shared vector and a task, and returns the vector of the task's expert.
    ``learn`` takes the shared vector; it is called once. ``expert_bytes`` returns what is stored of
    all experts, beside the shared vector and the router.
    """

    shared: Mapping
    own: Callable[[Mapping, str], Mapping]
    learn: Callable[[Mapping], Router]
    expert_bytes: Callable[[], int]

    def vectors(self, tasks: Sequence[str]) -> "dict[str, RoutedVector]":
        """Return task -> the vector of its expert."""
        return {task: RoutedVector(self.own(self.shared, task), self) for task in tasks}


class RoutedVector(OtherLayers):
    """The vector that serves images which the router gives to one task alone."""

    def __init__(self, vector: Mapping, routing: Routing) -> None:
        super().__init__(vector)
        self.routing = routing


def part_of_both(pair: Sequence[LazyMapping], name: str, compute: Callable[[Tensor], Any]) -> Part:
    """Return the part that computes of a layer of the shared vector and a task's, stacked."""

    def read() -> Tensor:
        return stacked((vector[name] for vector in pair), len(pair))

    return Part(name, 0, 2 * pair[1].shape(name).numel(), read, compute)


def one_hot(chosen: Tensor, num_tasks: int) -> Float[Tensor, "images tasks"]:
    """Return gates that count one task for each image: the one chosen, as a number [images]."""
    return torch.nn.functional.one_hot(chosen, num_tasks).float()
