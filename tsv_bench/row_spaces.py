"""Row spaces of matrices, and the inverse root of the sum of the projections onto them."""

import logging
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.inverse_roots import InverseRootOfMatrix
from tsv_bench.lapack import condition
from tsv_bench.linalg import CHUNK, InverseRoot, lower_gram, singular_zero

logger = logging.getLogger(__name__)

# A smallest singular value below this share of the largest cannot be told from zero by a Gram
# matrix in float64.
SMALLEST = 1e-6
# Condition number up to which one Cholesky factor leaves rows orthonormal to 1e-8; then two do.
ONE_PASS = 1e4
# Of the sum of projections: multiplies the rounding of float32. At 40, 2e-6 was measured.
WELL_CONDITIONED = 100


class RowRoot(NamedTuple):
    """The lower Cholesky factor of a a^T, [m, m], float64; at least the condition number of a."""

    factor: Tensor
    condition: float


def row_root(a: Float[Tensor, "m n"]) -> RowRoot | None:
    """None unless the rows are independent: no singular value counts as `singular_zero`."""
    zero = max(singular_zero(a.dtype), SMALLEST)
    squares = lower_gram(a.mT.double())
    factor, failed = torch.linalg.cholesky_ex(squares)
    if failed:
        return None
    bound = math.sqrt(condition(factor.cpu()))
    if bound * zero >= 1:  # the condition number itself may be far below
        values = torch.linalg.eigvalsh(squares)
        if values[0] <= zero**2 * values[-1]:
            return None
    return RowRoot(factor, bound)


def orthonormal_rows(a: Float[Tensor, "m n"], root: RowRoot) -> Float[Tensor, "m n"]:
    """An orthonormal basis of the row space of ``a``, in float64."""
    rows = _solved(root.factor, a.double())
    if root.condition > ONE_PASS:
        rows = _solved(torch.linalg.cholesky(lower_gram(rows.mT)), rows)
    return rows


def _solved(factor: Float[Tensor, "m m"], a: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """factor^-1 a. From the right, as LAPACK goes by columns: no copy is made of rows."""
    return torch.linalg.solve_triangular(factor.mT, a.mT, upper=True, left=False).mT


def times_inverse_root(
    x: Float[Tensor, "m n"], rows: Float[Tensor, "count n"]
) -> Float[Tensor, "m n"]:
    """x (rows^T rows)^(-1/2), for as many rows as columns at least; zero where these span nothing.

    On a CPU in float32, then in float64, where the condition number allows it; else, and on a GPU,
    by eigenvectors.
    """
    if not rows.is_cuda:
        try:
            if rows.dtype == torch.float32:
                root = InverseRootOfMatrix(lower_gram(rows))
                if root.condition <= WELL_CONDITIONED:
                    return root.times(x)
            return InverseRootOfMatrix(
                sum(lower_gram(p.double()) for p in rows.split(CHUNK))
            ).times(x)
        except ArithmeticError as error:
            logger.info("inverse root of %s by eigenvectors: %s", rows.shape[1], error)
    return InverseRoot(rows).times(x.mT.double()).mT
