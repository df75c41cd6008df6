"""What a method that learns or searches receives: images, heads and the network itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from tsv_bench.task_vectors.statistics import Statistics


@runtime_checkable
class Bench(Protocol):
    """The suite's images, and its network as a differentiable function of named weights.

    It holds the images that the method may see, in memory and no others. Weights are any mapping
    with the names of ``pretrained``; gradients flow into those that require them. What passes
    through the network is counted for the Run. All is on ``device``.
    """

    device: str
    seed: int  # of the Run; what is random in learning follows it
    tasks: Sequence[str]
    pretrained: Mapping[str, Tensor]  # the backbone's weights, float32
    num_blocks: int  # residual blocks

    def images(self, task: str) -> Tensor:
        """Return the images of a task that the method may see: [images, 3, size, size], uint8."""

    def labels(self, task: str) -> Tensor:
        """Return their labels [images]. Raises ValueError unless the yaml has ``labels: true``."""

    def head(self, task: str) -> Tensor:
        """Return the task's frozen classifier [classes, dim]."""

    def features(self, weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return the features [images, dim] that these weights give, not normalized."""

    def logits(self, task: str, features: Tensor) -> Tensor:
        """Return the logits [images, classes] of features, which are normalized first."""

    def embed(self, weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return the tokens [images, tokens, width] that the first block gets."""

    def run_block(self, weights: Mapping[str, Tensor], number: int, tokens: Tensor) -> Tensor:
        """Return what block ``number`` makes of the tokens."""

    def read_out(self, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
        """Return the features of the last block's tokens."""

    def linear_inputs(self, weights: Mapping[str, Tensor], run: Callable[[], object]) -> Statistics:
        """Return x^T x of the inputs of linear layers that ``run`` passes through these weights."""
