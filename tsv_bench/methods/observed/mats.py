"""MaTS, merging by matching task subspaces: https://arxiv.org/abs/2312.04339."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.svd import eigh
from tsv_bench.methods.knobs import check_not_negative, check_positive, check_whole
from tsv_bench.methods.observed.anchors import anchor_vector, check_anchor
from tsv_bench.methods.observed.normal_equations import NormalEquations, normal_equations
from tsv_bench.methods.observed.observations import Observations, Observed, merge_observed, oriented
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.statistics import TaskStatistics
from tsv_bench.task_vectors.streaming import watched

__all__ = ["mats"]


def mats(
    task_vectors: TaskVectors,
    *,
    inputs: TaskStatistics,
    iterations: int = 100,
    tolerance: float | int = 1e-5,
    start: str = "task_arithmetic",
    start_alpha: float | int = 0.3,
) -> ServedVectors:
    """Serve every task linear layers on the way from a merged model to RegMean without damping.

    At most ``iterations`` steps of conjugate gradients are taken, until the residual is
    ``tolerance`` of the right side; to stop early regularizes. They begin at ``start_alpha`` times
    the vector of the method ``start``, which directions that no image reaches keep. Layers without
    statistics in every task are averaged. Raises ValueError for knobs out of range.
    """
    check_whole("iterations", iterations, "the number of conjugate gradients' steps, at most", 0)
    check_positive("tolerance", tolerance, "the share of the right side at which a row is solved")
    check_anchor("start", start)
    check_not_negative("start_alpha", start_alpha, "the scale of the vector to start from")
    if not task_vectors:
        return {}
    first, seen = anchor_vector(start, task_vectors), Observations(task_vectors, inputs)

    def rule(name: str, observed: Iterator[Observed]) -> Float[Tensor, "m n"]:
        sums = normal_equations(observed)
        merged = oriented(first, name, seen.axis(name)) * start_alpha
        return conjugate_gradients(sums, merged, iterations, tolerance)

    return dict.fromkeys(task_vectors, merge_observed(task_vectors, inputs, rule))


def conjugate_gradients(
    sums: NormalEquations, start: Float[Tensor, "m n"], iterations: int, tolerance: float | int
) -> Float[Tensor, "m n"]:
    """Return w after some steps towards w a = b, each output, a row of w, on its own.

    The steps are the same in every basis. In that of the eigenvectors of ``a`` they cost one
    multiplication an entry, so that a hundred of them take less time than finding it.
    """
    values, basis = eigh(sums.a)
    values = torch.where(values > sums.zero * values[-1:], values, 0)
    moved = torch.zeros_like(start)
    right = sums.b @ basis * (values > 0)
    residual = right - start @ basis * values
    enough = tolerance * torch.linalg.vector_norm(right, dim=1)
    direction, square = residual.clone(), residual.square().sum(dim=1)
    label = f"conjugate gradients, {start.shape[0]} x {start.shape[1]}"
    for _ in watched(range(iterations), iterations, label):
        open_rows = square.sqrt() > enough
        if not open_rows.any():
            break
        image = direction * values
        curvature = (direction * image).sum(dim=1)
        going = open_rows & (curvature > 0)
        length = torch.where(going, square / torch.where(going, curvature, 1), 0)[:, None]
        moved.addcmul_(direction, length)
        residual.addcmul_(image, length, value=-1)
        after = residual.square().sum(dim=1)
        turn = torch.where(going, after / torch.where(square > 0, square, 1), 0)[:, None]
        direction.mul_(turn).add_(residual)
        square = after
    return start + moved @ basis.mT
