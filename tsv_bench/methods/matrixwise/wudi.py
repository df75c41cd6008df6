"""WUDI-Merging: https://arxiv.org/abs/2503.08099."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_unit_scale
from tsv_bench.methods.knobs import check_choice, check_positive, check_whole
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import merge_layers
from tsv_bench.task_vectors.streaming import watched

__all__ = ["wudi"]

SOLVERS = ("adam", "closed_form")
BETAS, EPS = (0.9, 0.999), 1e-8  # torch.optim.Adam's defaults, as in the authors' code
# Eigenvalues up to this share of the largest belong to directions that no task has or that hardly
# change the objective. Dividing by them would magnify rounding errors.
SMALLEST = 1e-10


def wudi(
    task_vectors: TaskVectors,
    *,
    solver: str = "adam",
    iterations: int = 300,
    learning_rate: float | int = 1e-5,
    relative_learning_rate: float | int | None = None,
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task matrices that minimize `interference`, starting from the sum.

    ``solver`` "adam" takes ``iterations`` steps of at most about ``learning_rate`` an entry, or, if
    given, ``relative_learning_rate`` times the root mean square of the layer's deltas. With
    "closed_form" none of these counts: it is the minimizer nearest to the sum. Layers that are no
    matrices are averaged; ``exclude`` and ``split_qkv`` as in `tsv_merge`. Raises ValueError for
    knobs out of range.
    """
    check_choice("solver", solver, SOLVERS, "a way to minimize interference")
    check_whole("iterations", iterations, "the number of Adam's steps", 0)
    meaning = "how far Adam moves an entry in one iteration"
    check_positive("learning_rate", learning_rate, meaning)
    if relative_learning_rate is not None:
        meaning += ", as a share of the root mean square of the layer's deltas"
        check_positive("relative_learning_rate", relative_learning_rate, meaning)
    matrices = Matrices.of(exclude, split_qkv)
    rule = partial(
        merge_matrix,
        solver=solver,
        iterations=iterations,
        learning_rate=learning_rate,
        relative_learning_rate=relative_learning_rate,
    )
    return dict.fromkeys(task_vectors, merge_layers(task_vectors.values(), rule, matrices=matrices))


def interference(
    merged: Float[Tensor, "m n"], deltas: Float[Tensor, "tasks m n"]
) -> Float[Tensor, ""]:
    """Return the sum over tasks of ||(merged - delta) delta^T||^2 / ||delta||^2, a layer's loss.

    The rows of a delta stand for inputs of the layer. Tasks that changed nothing count as zero.
    """
    squares = ((merged - deltas) @ deltas.mT).square().sum(dim=(1, 2))
    return (squares * inverse_squares(deltas)).sum()


def merge_matrix(
    deltas: Float[Tensor, "tasks m n"],
    solver: str,
    iterations: int,
    learning_rate: float | int,
    relative_learning_rate: float | int | None = None,
) -> Float[Tensor, "m n"]:
    """Merge one layer's task matrices: move their sum to where interference is low.

    A move by d changes the interference by tr d a d^T - 2 tr r d^T. Half its gradient is d a - r,
    where a is the sum of delta^T delta / ||delta||^2, so that the deltas are read only once.
    """

    def rule(deltas: Tensor) -> Tensor:
        return _minimized(deltas, solver, iterations, learning_rate, relative_learning_rate)

    # Adam's steps of a given length make another rule of deltas of another scale.
    scaled = solver == "closed_form" or relative_learning_rate is not None
    return at_unit_scale(rule, deltas) if scaled else rule(deltas)


def _minimized(
    deltas: Float[Tensor, "tasks m n"],
    solver: str,
    iterations: int,
    learning_rate: float | int,
    relative_learning_rate: float | int | None,
) -> Float[Tensor, "m n"]:
    a, r = normal_equations(deltas)
    if solver == "closed_form":
        moved = solve(a, r)
    else:
        unit = 1.0  # in which Adam sees the entries
        if relative_learning_rate is not None:
            unit, learning_rate = root_mean_square(deltas), relative_learning_rate
        moved = adam(a.to(deltas.dtype), (r / unit).to(deltas.dtype), iterations, learning_rate)
        moved = moved * unit
    return deltas.sum(dim=0) + moved.to(deltas.dtype)


def normal_equations(
    deltas: Float[Tensor, "tasks m n"],
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "m n"]]:
    """Return a and r, in float64: r is a small difference of large terms."""
    n = deltas.shape[2]
    a = torch.zeros(n, n, dtype=torch.float64, device=deltas.device)
    r = torch.zeros(deltas.shape[1:], dtype=torch.float64, device=deltas.device)
    total = deltas.sum(dim=0).double()
    for delta, scale in zip(deltas, inverse_squares(deltas), strict=True):
        delta = delta.double()
        gram = (delta.mT @ delta).mul_(scale)  # in place: for 4096 inputs it takes 134 MB
        a += gram
        r += (delta - total) @ gram
    return a, r


def inverse_squares(deltas: Float[Tensor, "tasks m n"]) -> Float[Tensor, " tasks"]:
    """Return 1 / ||delta||^2 of each task, in float64; 0 for a task that changed nothing."""
    squares = deltas.square().sum(dim=(1, 2), dtype=torch.float64)
    return torch.where(squares > 0, 1 / squares, 0.0)


def root_mean_square(deltas: Float[Tensor, "tasks m n"]) -> float:
    """Return the root mean square of all tasks' entries, or 1 if they are all zero."""
    return float(deltas.square().mean(dtype=torch.float64).sqrt()) or 1.0


def solve(a: Float[Tensor, "n n"], r: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Return the smallest d with d a = r."""
    values, vectors = torch.linalg.eigh(a)
    left_out = int((values <= SMALLEST * values[-1]).sum())  # ascending
    values, vectors = values[left_out:], vectors[:, left_out:]
    return r @ vectors / values @ vectors.mT


def adam(
    a: Float[Tensor, "n n"], r: Float[Tensor, "m n"], iterations: int, learning_rate: float | int
) -> Float[Tensor, "m n"]:
    """Return d after ``iterations`` steps of Adam on tr d a d^T - 2 tr r d^T, from zero."""
    d, mean, square = (torch.zeros_like(r) for _ in range(3))
    steps = range(1, iterations + 1)
    for step in watched(steps, iterations, f"Adam, {r.shape[0]} x {r.shape[1]}"):
        gradient = torch.addmm(r, d, a, beta=-2, alpha=2)
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        length = (square / (1 - BETAS[1] ** step)).sqrt_().add_(EPS)
        d.addcdiv_(mean, length, value=-learning_rate / (1 - BETAS[0] ** step))
    return d
