"""Inverse square roots of positive definite matrices on a CPU, without their eigenvectors."""

import logging
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.linalg import eigvalsh_tridiagonal
from scipy.special import ellipj, ellipkm1
from torch import Tensor

from tsv_bench.linalg.lapack import Tridiagonal, call, condition
from tsv_bench.linalg.polar import InverseRoot
from tsv_bench.linalg.precision import singular_zero
from tsv_bench.linalg.svd import CHUNK, lower_gram

LARGEST_CONDITION = 1e6  # condition number up to which the inverse root is taken this way

ROWS = 32  # that are solved for at a time: those of a few thousand entries fit a core's cache


class InverseRootOfMatrix:
    """matrix^(-1/2) of a positive definite matrix, in a fifth of the time that eigenvectors take.

    ``matrix``: [n, n], float32 or float64 on the CPU; only its lower triangle is read. Raises
    ArithmeticError if LAPACK gives up or the condition number is above `LARGEST_CONDITION`.
    """

    def __init__(self, matrix: Float[Tensor, "n n"]) -> None:
        self._tridiagonal = Tridiagonal(matrix)
        self._diagonal = self._tridiagonal.diagonal.double()
        self._off_diagonal = self._tridiagonal.off_diagonal.double()
        lowest, highest = (self._eigenvalue(index) for index in (0, len(matrix) - 1))
        self.condition = highest / lowest if lowest > 0 else math.inf
        if self.condition > LARGEST_CONDITION:
            raise ArithmeticError(f"a condition number of {self.condition:.1e} is too large.")
        self._poles = poles(lowest, highest, torch.finfo(matrix.dtype).eps)

    def times(self, rows: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """Return rows @ matrix^(-1/2) in the matrix's type: one tridiagonal system a pole."""
        dtype = self._tridiagonal.diagonal.dtype
        rotated = rows.to(dtype, copy=True, memory_format=torch.contiguous_format)
        self._tridiagonal.apply_q(rotated, transposed=True)
        for part in rotated.split(ROWS):
            part.copy_(self._times_tridiagonal(part.double()))
        self._tridiagonal.apply_q(rotated)
        return rotated

    def _times_tridiagonal(self, rows: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """Return rows @ t^(-1/2) for the tridiagonal form t, in float64."""
        (m, n), total = rows.shape, torch.zeros_like(rows)
        for shift, weight in self._poles:
            solved = rows.clone()
            call("dptsv", n, m, self._diagonal + shift, self._off_diagonal.clone(), solved, n)
            total.add_(solved, alpha=weight)
        return total

    def _eigenvalue(self, index: int) -> float:
        [value] = eigvalsh_tridiagonal(
            self._diagonal.numpy(), self._off_diagonal.numpy(), select="i",
            select_range=(index, index),
        )  # fmt: skip
        return float(value)


def poles(lowest: float, highest: float, error: float) -> list[tuple[float, float]]:
    """Return shifts and weights such that the sum of weight / (x + shift) is x^(-1/2).

    For x from ``lowest`` to ``highest``, within a relative ``error`` of 1e-10 or more. The sum is
    an integral by the trapezoidal rule, which converges geometrically: Hale, Higham and Trefethen
    2008, doi:10.1137/070700607, method 3.
    """
    ratio = lowest / highest
    quarter = float(ellipkm1(ratio))  # of the elliptic functions' period, at 1 - ratio
    count = math.ceil(math.log(4 / error) * math.log(4 / math.sqrt(ratio)) / math.pi**2)
    found = []
    for i in range(count):
        sn, cn, dn, _ = map(float, ellipj((i + 0.5) * quarter / count, 1 - ratio))
        weight = 2 * quarter * math.sqrt(lowest) / (math.pi * count) * dn / cn**2
        found.append((lowest * (sn / cn) ** 2, weight))
    return found


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
