"""Learn a few numbers by Adam on batches of the bench's images."""

import logging
import zlib
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from tsv_bench.linalg.precision import all_finite
from tsv_bench.methods.bench import Bench
from tsv_bench.task_vectors.streaming import watched

log = logging.getLogger(__name__)

BETAS, EPS = (0.9, 0.999), 1e-8  # torch.optim.Adam's defaults, as in the authors' codes


class Adam:
    """Adam's steps (https://arxiv.org/abs/1412.6980) on parameters that have gradients.

    As torch.optim.Adam takes them, whose import alone takes seconds.
    """

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float | int) -> None:
        self._parameters, self._rate, self._count = list(parameters), learning_rate, 0
        self._means = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter by its gradient."""
        self._count += 1
        first, second = (1 - beta**self._count for beta in BETAS)
        moments = zip(self._parameters, self._means, self._squares, strict=True)
        for parameter, mean, square in moments:
            mean.lerp_(parameter.grad, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(parameter.grad, parameter.grad, value=1 - BETAS[1])
            length = (square / second).sqrt_().add_(EPS)
            parameter.addcdiv_(mean, length, value=-self._rate / first)


def minimize(
    parameters: Sequence[Tensor],
    gradient: Callable[[], Tensor],
    *,
    steps: int,
    learning_rate: float | int,
    what: str,
) -> None:
    """Take Adam's steps in place; ``gradient`` sets every parameter's grad and returns the loss.

    A loss or gradient that is not finite ends it, with a warning that begins with ``what``: the
    parameters stay as they were when both were last finite, or as at the start.
    """
    adam = Adam(parameters, learning_rate)
    kept = [parameter.detach().clone() for parameter in parameters]
    for step in watched(range(1, steps + 1), steps, what):
        for parameter in parameters:
            parameter.grad = None
        loss = gradient()
        if not (all_finite(loss.detach()) and all(all_finite(p.grad) for p in parameters)):
            _give_back(parameters, kept, f"{what}: the loss or its gradient", step)
            return
        kept = [parameter.detach().clone() for parameter in parameters]
        adam.step()
    if not all(all_finite(parameter.detach()) for parameter in parameters):
        _give_back(parameters, kept, f"{what}: what is learned", steps)


def _give_back(parameters: Sequence[Tensor], kept: Sequence[Tensor], what: str, step: int) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
    log.warning(
        f"{what} is not finite in step {step}: learning stops, and what was there before that is "
        f"kept. Lower learning_rate?"
    )


def generator(bench: Bench, task: str, what: str) -> torch.Generator:
    """Return random numbers that depend on the Run's seed, the task and what they are for."""
    text = f"{bench.seed} {task} {what}"
    return torch.Generator().manual_seed(zlib.crc32(text.encode()))


class Batches:
    """Rows of a task's images, drawn anew for every batch and each at most once in it."""

    def __init__(self, bench: Bench, task: str, batch_size: int) -> None:
        self._number, self._size = len(bench.images(task)), batch_size
        self._generator = generator(bench, task, "batches")

    def rows(self) -> Int[Tensor, " batch"]:
        """Return the rows of the next batch: all of them if there are fewer."""
        return torch.randperm(self._number, generator=self._generator)[: self._size]
