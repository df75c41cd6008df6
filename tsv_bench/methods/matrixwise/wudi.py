"""WUDI-Merging: https://arxiv.org/abs/2503.08099."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.knobs import check_choice, check_positive, check_whole
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import merge_layers
from tsv_bench.task_vectors.streaming import watched

__all__ = ["wudi"]

SOLVERS = ("adam", "closed_form")
BETAS, EPS = (0.9, 0.999), 1e-8  # torch's for Adam, as in the authors' code
# Eigenvalues below this share of the largest are those of directions that no task has, or that
# hardly change the objective; dividing by them would bring rounding into the merged matrix.
SMALLEST = 1e-10


def wudi(
    task_vectors: TaskVectors,
    *,
    solver: str,
    iterations: int,
    learning_rate: float | int,
    relative_learning_rate: float | int | None = None,
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Of each matrix what minimizes `interference`, from the sum on; one vector for all tasks.

    ``solver`` "adam" takes ``iterations`` steps of at most about ``learning_rate`` an entry, or
    ``relative_learning_rate`` times the root mean square of the layer's deltas; "closed_form" needs
    none of these: of all minimizers it is the one nearest to the sum. Matrices as `Matrices` has
    them, the others averaged. ``exclude`` null: embeddings, output heads and text_projection.
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
    """Sum over tasks of ||(merged - delta) delta^T||^2 / ||delta||^2; paper, the loss of a layer.

    The rows of a delta stand for the inputs of its layer. Tasks that changed nothing count nothing.
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
    """Merge one layer's task matrices: their sum, moved to where interference is low.

    Moved by d, interference changes by tr d a d^T - 2 tr r d^T, of which half the gradient is
    d a - r: with ``a`` the sum of delta^T delta / ||delta||^2, the tasks need not be looked at
    again.
    """
    a, r = normal_equations(deltas)
    if solver == "closed_form":
        moved = solve(a, r)
    else:
        unit = 1.0  # of the entries that Adam sees
        if relative_learning_rate is not None:
            unit, learning_rate = root_mean_square(deltas), relative_learning_rate
        moved = adam(a.to(deltas.dtype), (r / unit).to(deltas.dtype), iterations, learning_rate)
        moved = moved * unit
    return deltas.sum(dim=0) + moved.to(deltas.dtype)


def normal_equations(
    deltas: Float[Tensor, "tasks m n"],
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "m n"]]:
    """a and r, in float64: r is a small difference where tasks hardly interfere."""
    n = deltas.shape[2]
    a = torch.zeros(n, n, dtype=torch.float64, device=deltas.device)
    r = torch.zeros(deltas.shape[1:], dtype=torch.float64, device=deltas.device)
    total = deltas.sum(dim=0).double()
    for delta, scale in zip(deltas, inverse_squares(deltas), strict=True):
        delta = delta.double()
        gram = (delta.mT @ delta).mul_(scale)  # in place: of 4096 inputs it has 134 MB
        a += gram
        r += (delta - total) @ gram
    return a, r


def inverse_squares(deltas: Float[Tensor, "tasks m n"]) -> Float[Tensor, " tasks"]:
    squares = deltas.square().sum(dim=(1, 2), dtype=torch.float64)
    return torch.where(squares > 0, 1 / squares, 0.0)


def root_mean_square(deltas: Float[Tensor, "tasks m n"]) -> float:
    """Of all tasks' entries; 1 where these are all zero."""
    return float(deltas.square().mean(dtype=torch.float64).sqrt()) or 1.0


def solve(a: Float[Tensor, "n n"], r: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """The smallest d with d a = r."""
    values, vectors = torch.linalg.eigh(a)
    left_out = int((values <= SMALLEST * values[-1]).sum())  # ascending
    values, vectors = values[left_out:], vectors[:, left_out:]
    return r @ vectors / values @ vectors.mT


def adam(
    a: Float[Tensor, "n n"], r: Float[Tensor, "m n"], iterations: int, learning_rate: float | int
) -> Float[Tensor, "m n"]:
    """d after so many steps of Adam from zero towards d a = r."""
    d, mean, square = (torch.zeros_like(r) for _ in range(3))
    steps = range(1, iterations + 1)
    for step in watched(steps, iterations, f"Adam, {r.shape[0]} x {r.shape[1]}"):
        gradient = torch.addmm(r, d, a, beta=-2, alpha=2)
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        length = (square / (1 - BETAS[1] ** step)).sqrt_().add_(EPS)
        d.addcdiv_(mean, length, value=-learning_rate / (1 - BETAS[0] ** step))
    return d
