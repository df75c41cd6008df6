"""What a method that learns or searches receives: images, heads and the network itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from tsv_bench.task_vectors.statistics import Statistics

# (name of the weight, inputs [images, tokens, n], weight [m, n], bias [m]) -> [images, tokens, m]
Linear = Callable[[str, Tensor, Tensor, Tensor | None], Tensor]


@runtime_checkable
class Bench(Protocol):
    """The suite's images, and its network as a differentiable function of named weights.

    It holds the images that the method may see, in memory and no others. Weights are any mapping
    with the names of ``pretrained``; gradients flow into those that require them. What passes
    through the network is counted for the Run. All is on ``device``. A method that works long keeps
    whole steps under names of its own, and looks for them when it begins: a Run that was killed
    goes on from there, with the same result.
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

    def features(
        self, weights: Mapping[str, Tensor], images: Tensor, linear: Linear | None = None
    ) -> Tensor:
        """Return the features [images, dim] that these weights give, not normalized.

        ``linear``: what the linear layers of residual blocks compute, if not their product.
        """

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

    def kept(self, name: str) -> Mapping[str, Tensor] | None:
        """Return what this Run kept under a name before it was killed, read on access; or None."""

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors on disk under a name until the Run is finished."""

    def note(self, name: str, content: Any) -> None:
        """Put plain data under a name into the Run's ``details``, for figures and readers."""

    def report(self, name: str, step: int, vector: Mapping[str, Tensor]) -> None:
        """Note the validation accuracy of a vector that all tasks are served, for readers alone.

        It is that of images that the method did not see. Nothing is returned, so that nothing can
        be chosen by it; the same step is evaluated once. What is noted under the name: the
        ``steps``, and of each task the number of ``images`` and of those ``right`` at each step.
        """

    def num_steps(self, task: str, epochs: int | None = None, batch_size: int | None = None) -> int:
        """Return the steps of so many epochs of fine-tuning; None: as its checkpoint is made."""

    def fine_tune(
        self,
        task: str,
        weights: Mapping[str, Tensor],
        *,
        steps: int,
        first: int = 0,
        name: str,
        constant: bool = False,
        **changes: Any,
    ) -> Mapping[str, Tensor]:
        """Return the weights after so many steps on the task's images, with a fresh optimizer.

        The recipe is the backbone's fine-tuning, with ``changes`` to its fields, and with
        ``constant`` the peak rate in every step. ``first``: how many batches were taken before,
        by which the next ones go on. ``name`` tells this training from others of the Run: one that
        was killed goes on where it was. Raises ValueError unless the yaml has ``fine_tunes: true``.
        """


def check_bench(method: str, bench: Bench | None) -> None:
    """Raise ValueError if there is no bench."""
    if bench is None:
        raise ValueError(
            f"{method} learns on images of the tasks and got none: give it a bench, as tsv-bench "
            f"method={method} does."
        )


def check_fits(bench: Bench, task_vectors: Mapping[str, Mapping]) -> None:
    """Raise ValueError for a task without images, or a layer that the network does not have."""
    if missing := [task for task in task_vectors if task not in bench.tasks]:
        raise ValueError(
            f"the bench has no images of {missing[0]}, but of {', '.join(bench.tasks)}."
        )
    layers = next(iter(task_vectors.values()), {})
    if odd := [name for name in layers if name not in bench.pretrained]:
        raise ValueError(
            f"{len(odd)} layers of the task vectors are not in the bench's network, first "
            f"{odd[0]!r}. Are both of the same backbone?"
        )
