"""ACE-Merging, by covariances estimated from task vectors: https://arxiv.org/abs/2603.02945."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import singular_zero
from tsv_bench.linalg.svd import lower_gram, symmetric, truncated_svd
from tsv_bench.methods.knobs import check_not_negative, check_positive, check_range
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import merge_layers

__all__ = ["ace"]

ROWS = 256  # that are in float64 at a time where only a sum is asked for
GUARD = 1e-12  # of the authors' code, so that a logarithm and a quotient are finite
# A ridge below this share of the sum's trace would leave a matrix that float64 cannot solve with.
LEAST_RIDGE = 1e-12


class Knobs(NamedTuple):
    """What `merge_matrix` is given beside the deltas; see `ace`."""

    eps: float
    eps_relative: float | None
    threshold: float
    spectral_fraction: float


def ace(
    task_vectors: TaskVectors,
    *,
    eps: float | int = 1e-5,
    eps_relative: float | int | None = None,
    threshold: float | int = 0.3,
    spectral_fraction: float | int = 0.3,
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task matrices that fit each task on the inputs which its delta stands for.

    ``eps`` is added to the diagonal of each task's covariance of inputs; if ``eps_relative`` is
    given, that share of the mean diagonal of their sum is instead. A layer where `heterogeneity` is
    above ``threshold`` has its covariances normalized, and the ``spectral_fraction`` leading
    directions of a correction are added. Layers that are no matrices are averaged; ``exclude`` and
    ``split_qkv`` as in `tsv_merge`. Raises ValueError for knobs out of range.
    """
    check_positive("eps", eps, "what is added to the diagonal of a task's covariance")
    if eps_relative is not None:
        meaning = "what is added to the diagonal of a task's covariance, as a share of the mean "
        check_positive("eps_relative", eps_relative, meaning + "diagonal of their sum")
    meaning = "the spread of the tasks' sizes above which a layer's covariances are normalized"
    check_not_negative("threshold", threshold, meaning)
    meaning = "the share of directions that the correction adds to such a layer"
    check_range("spectral_fraction", spectral_fraction, 0, 1, meaning)
    matrices = Matrices.of(exclude, split_qkv)
    rule = partial(merge_matrix, knobs=Knobs(eps, eps_relative, threshold, spectral_fraction))
    merged = merge_layers(task_vectors.values(), rule, matrices=matrices, work=work)
    return dict.fromkeys(task_vectors, merged)


def work(shape: Sequence[int]) -> int:
    """Return how many entries in float32 `merge_matrix` takes beside the deltas."""
    m, n = shape
    return 2 * (4 * n * n + 6 * m * n)  # in float64: Gram matrices and a factor; sums and solutions


def merge_matrix(deltas: Float[Tensor, "tasks m n"], knobs: Knobs) -> Float[Tensor, "m n"]:
    """Merge one layer's task matrices: solve for W on estimated inputs, then correct it.

    Tasks that did not change the matrix are left out, as if the suite had no such task: they have
    no inputs to fit, and the logarithm of their size would make any layer heterogeneous. Where all
    rows of every delta are equal there are no inputs at all, and the merge is zero.
    """
    squares = deltas.new_tensor([square_sum(delta) for delta in deltas], dtype=torch.float64)
    if not squares.all():
        deltas, squares = deltas[squares > 0], squares[squares > 0]
    is_mixed = heterogeneity(squares) > knobs.threshold
    sums = covariance_sums(deltas, squares, is_mixed)
    if not sums.raw_trace:
        return deltas.new_zeros(deltas.shape[1:])
    eps = knobs.eps
    if knobs.eps_relative is not None:
        eps = knobs.eps_relative * sums.raw_trace / deltas.shape[2]
    trace = float(sums.covariance.diagonal().sum())
    eps = max(eps, LEAST_RIDGE * trace / sums.weight)
    sums.covariance.diagonal().add_(eps * sums.weight)
    prior = sums.prior / squares.mean() if is_mixed else sums.prior
    merged = solve(sums.covariance, prior, sums.products + eps * sums.centred)
    if is_mixed:
        total = deltas.sum(dim=0, dtype=torch.float64)
        of_total = total @ symmetric(sums.covariance) / len(deltas)
        residual = sums.products + sums.means - of_total
        merged += leading_directions(merged + residual, knobs.spectral_fraction)
    return merged.to(deltas.dtype)


def square_sum(delta: Float[Tensor, "m n"]) -> float:
    """Return the sum of squares in float64, some rows at a time: a copy of all takes memory."""
    return sum(float(rows.double().square().sum()) for rows in delta.split(ROWS))


def heterogeneity(squares: Float[Tensor, " tasks"]) -> float:
    """Return the variance of the logarithms of squared sizes over the square of their mean."""
    if len(squares) < 2:
        return 0.0
    logs = torch.log(squares + GUARD)
    return float(logs.var() / (logs.mean().square() + GUARD))


class Sums(NamedTuple):
    """What a merge needs of all tasks, in float64. D is a delta without the mean of its rows.

    Each task has a weight: 1, or in a heterogeneous layer 1 / tr D^T D.
    """

    covariance: Float[Tensor, "n n"]  # of weight * D^T D; its lower triangle
    products: Float[Tensor, "m n"]  # of weight * D D^T D
    centred: Float[Tensor, "m n"]  # of weight * D
    means: Float[Tensor, " n"]  # of weight * mean row of the delta * D^T D
    prior: Float[Tensor, " n"]  # the mean row of the covariance
    weight: float
    raw_trace: float  # of tr D^T D, whatever the weights


def covariance_sums(
    deltas: Float[Tensor, "tasks m n"], squares: Float[Tensor, " tasks"], is_mixed: bool
) -> Sums:
    """Return the sums over tasks, adding one task at a time."""
    m, n = deltas.shape[1:]
    new = partial(torch.zeros, dtype=torch.float64, device=deltas.device)
    covariance, products, centred, means, prior = new(n, n), new(m, n), new(m, n), new(n), new(n)
    total_weight = total_trace = 0.0
    for delta, square in zip(deltas, squares.tolist(), strict=True):
        delta = delta.double()
        mean = delta.mean(dim=0)
        delta = delta - mean
        trace = float(delta.square().sum())
        if trace <= (singular_zero(torch.float64) * math.sqrt(m)) ** 2 * square:
            delta, trace = torch.zeros_like(delta), 0.0  # the rest of equal rows is rounding
        total_trace += trace
        weight = 1.0 if not is_mixed else 1 / trace if trace else 0.0
        total_weight += weight
        scaled = weight * delta
        gram = lower_gram(delta)
        covariance.add_(gram, alpha=weight)
        if m < n:  # D D^T is the smaller Gram matrix
            products.addmm_(symmetric(lower_gram(delta.mT)), scaled)
        else:
            products.addmm_(scaled, symmetric(gram))
        centred += scaled
        means += mean @ delta.mT @ scaled
        prior += delta.sum(dim=1) @ scaled / n
    return Sums(covariance, products, centred, means, prior, total_weight, total_trace)


def solve(
    covariance: Float[Tensor, "n n"], prior: Float[Tensor, " n"], products: Float[Tensor, "m n"]
) -> Float[Tensor, "m n"]:
    """Return W with W (covariance + 1 prior) = products, where 1 is a column of ones.

    Of the positive definite covariance only the lower triangle is read. Sherman and Morrison's
    formula adds the rank-one term. It divides by 1 + prior covariance^-1 1, which is above 1, as
    the prior is a mean row of the covariance without its ridge.
    """
    factor = torch.linalg.cholesky(covariance)
    rows = torch.cat([products, prior[None]])
    solved = torch.cholesky_solve(rows.mT, factor).mT
    merged, prior = solved[:-1], solved[-1]
    return merged - torch.outer(merged.sum(dim=1) / (1 + prior.sum()), prior)


def leading_directions(
    matrix: Float[Tensor, "m n"], spectral_fraction: float
) -> Float[Tensor, "m n"]:
    """Return the leading directions, at least one, with their singular values at their mean."""
    full_rank = min(matrix.shape)
    # Rounded, because 0.29 * 100 is 28.999999999999996.
    rank = math.floor(round(full_rank * spectral_fraction, 9))
    if spectral_fraction:
        rank = max(rank, 1)
    u, s, vh = truncated_svd(matrix, rank, "svd")
    # Singular vectors of a zero singular value are arbitrary: they are no directions.
    spanned = s > singular_zero(s.dtype) * s[:1]
    return (u * spanned) @ vh * (s.sum() / max(rank, 1))
