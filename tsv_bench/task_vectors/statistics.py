"""Statistics: what a method may see of data through a task's network, a small tensor a layer."""

from collections.abc import Mapping
from dataclasses import dataclass

from tsv_bench.task_vectors.lazy import OtherLayers

# Task -> its statistics. The inner type has no parameters, as checking them would read a layer.
TaskStatistics = Mapping[str, Mapping]


@dataclass(frozen=True)
class Gathered:
    """How a layer's statistics came about."""

    count: int | None = (
        None  # of inputs: tokens of all images, or images for the Fisher; None: unknown
    )
    axis: int = 1  # of the layer's weight, along which its inputs run: 1 as torch stores it


class Statistics(OtherLayers):
    """The statistics of one kind and one task, read layer by layer.

    Layers that no data passed through as a linear map are missing.
    """

    def __init__(self, layers: Mapping, gathered: Mapping[str, Gathered] | None = None) -> None:
        super().__init__(layers)
        self._gathered = gathered or {}

    def gathered(self, name: str) -> Gathered:
        """Return how a layer's statistics came about."""
        return self._gathered.get(name, Gathered())


def as_statistics(layers: Mapping) -> Statistics:
    """Return the mapping itself if it holds statistics, else one that wraps it, without counts."""
    return layers if isinstance(layers, Statistics) else Statistics(layers)
