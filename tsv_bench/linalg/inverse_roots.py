"""Bases of row spaces and products with inverse square roots of rows^T rows."""

import logging
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.lapack import condition
from tsv_bench.linalg.polar import InverseRoot
from tsv_bench.linalg.precision import singular_zero
from tsv_bench.linalg.svd import CHUNK, lower_gram
from tsv_bench.linalg.tridiagonal_roots import InverseRootOfMatrix

logger = logging.getLogger(__name__)

# A Gram matrix in float64 cannot tell a singular value below this share of the largest from zero.
SMALLEST = 1e-6
# Condition number up to which one Cholesky factor leaves rows orthonormal to 1e-8; above, two do.
ONE_PASS = 1e4
# Condition number of rows^T rows up to which float32 does. It multiplies rounding errors: at 40,
# 2e-6 was measured.
WELL_CONDITIONED = 100


class RowRoot(NamedTuple):
    """The lower Cholesky factor of a a^T."""

    factor: Tensor  # [m, m], float64
    condition: float  # an upper bound on the condition number of a


def row_root(a: Float[Tensor, "m n"]) -> RowRoot | None:
    """Return the root of a a^T, or None if the rows are dependent: see `singular_zero`."""
    zero = max(singular_zero(a.dtype), SMALLEST)
    squares = lower_gram(a.mT.double())
    factor, failed = torch.linalg.cholesky_ex(squares)
    if failed:
        return None
    bound = math.sqrt(condition(factor.cpu()))
    if bound * zero >= 1:  # the condition number itself may be far smaller
        values = torch.linalg.eigvalsh(squares)
        if values[0] <= zero**2 * values[-1]:
            return None
    return RowRoot(factor, bound)


def orthonormal_rows(a: Float[Tensor, "m n"], root: RowRoot) -> Float[Tensor, "m n"]:
    """Return an orthonormal basis of the row space of ``a``, in float64."""
    rows = _solved(root.factor, a.double())
    if root.condition > ONE_PASS:
        rows = _solved(torch.linalg.cholesky(lower_gram(rows.mT)), rows)
    return rows


def _solved(factor: Float[Tensor, "m m"], a: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Return factor^-1 a, solved from the right: LAPACK goes by columns, so no copy is made."""
    return torch.linalg.solve_triangular(factor.mT, a.mT, upper=True, left=False).mT


def times_inverse_root(
    x: Float[Tensor, "m n"], rows: Float[Tensor, "count n"]
) -> Float[Tensor, "m n"]:
    """Return x (rows^T rows)^(-1/2), zero on the directions that the rows do not span.

    There must be at least as many rows as columns. On a CPU float32 is tried first, then float64,
    as the condition number allows; else, and on a GPU, eigenvectors are computed.
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
