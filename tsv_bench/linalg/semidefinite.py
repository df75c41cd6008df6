"""Linear systems with a positive semidefinite matrix, as sums of x^T x are."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.lapack import condition
from tsv_bench.linalg.svd import eigh


def semidefinite_zero(n: int, dtype: torch.dtype) -> float:
    """Return up to which eigenvalue of a matrix of unit diagonal one counts as zero.

    Rounding the entries to ``dtype`` moves eigenvalues by about sqrt(n) / 4 units in the last
    place, an eigendecomposition in float64 by less than 10 n.
    """
    return max(math.sqrt(n) * torch.finfo(dtype).eps, 10 * n * torch.finfo(torch.float64).eps)


def solve_semidefinite(
    b: Float[Tensor, "m n"], a: Float[Tensor, "n n"], zero: float
) -> Float[Tensor, "m n"]:
    """Return x with x a = b, zero on the null space of ``a``. Both are in float64.

    The rows of ``b`` must lie in the range of ``a``; what does not is left out. The diagonal of
    ``a`` is scaled to ones first; its null space then are eigenvectors of eigenvalues up to
    ``zero``: `semidefinite_zero`.
    """
    diagonal = a.diagonal()
    alive = diagonal > 0
    scale = torch.where(alive, diagonal, 1).rsqrt() * alive  # of a dead input all is zero
    scaled = a * scale[:, None] * scale
    scaled.diagonal()[~alive] = 1
    factor, failed = torch.linalg.cholesky_ex(scaled)
    # The bound on the condition number is n / (a lower bound on the smallest eigenvalue).
    if not failed and len(a) > zero * condition(factor.cpu()):
        return torch.cholesky_solve((b * scale).mT, factor).mT * scale
    values, vectors = eigh(scaled)
    spanned = values > zero
    kept = vectors[:, spanned]
    x = (b * scale) @ kept / values[spanned] @ kept.mT * scale
    # In the coordinates of ``a``, its null space is not orthogonal to what was solved for.
    null = torch.linalg.qr(scale[:, None] * vectors[:, ~spanned]).Q
    return x - x @ null @ null.mT
