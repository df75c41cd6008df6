"""Inverse square roots of symmetric matrices on a CPU, without their eigenvectors."""

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

LARGEST_CONDITION = 1e6  # of a matrix whose inverse root is taken this way


class InverseRootOfMatrix:
    """matrix^(-1/2) of a positive definite matrix [n, n]: a fifth of the time of eigenvectors.

    float32 or float64 on the CPU; only the lower triangle is read. ArithmeticError where LAPACK
    gives up, or the condition number is above `LARGEST_CONDITION`.
    """

    def __init__(self, matrix: Float[Tensor, "n n"]) -> None:
        self._tridiagonal = Tridiagonal(matrix)
        self._diagonal = self._tridiagonal.diagonal.double()
        self._beside = self._tridiagonal.beside.double()
        lowest, highest = (self._eigenvalue(index) for index in (0, len(matrix) - 1))
        self.condition = highest / lowest if lowest > 0 else math.inf
        if self.condition > LARGEST_CONDITION:
            raise ArithmeticError(f"a condition number of {self.condition:.1e} is too large.")
        self._poles = poles(lowest, highest, torch.finfo(matrix.dtype).eps)

    def times(self, rows: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """rows @ matrix^(-1/2), in the matrix's type: of every pole a tridiagonal system."""
        dtype, (m, n) = self._tridiagonal.diagonal.dtype, rows.shape
        turned = rows.to(dtype, copy=True, memory_format=torch.contiguous_format)
        self._tridiagonal.turn(turned, transposed=True)
        turned = turned.double()
        total = torch.zeros_like(turned)
        for shift, weight in self._poles:
            solved = turned.clone()
            call("dptsv", n, m, self._diagonal + shift, self._beside.clone(), solved, n)
            total.add_(solved, alpha=weight)
        total = total.to(dtype)
        self._tridiagonal.turn(total)
        return total

    def _eigenvalue(self, index: int) -> float:
        [value] = eigvalsh_tridiagonal(
            self._diagonal.numpy(), self._beside.numpy(), select="i", select_range=(index, index)
        )
        return float(value)


def poles(lowest: float, highest: float, error: float) -> list[tuple[float, float]]:
    """Shifts and weights: the sum of weight / (x + shift) is x^(-1/2) from lowest to highest.

    Within a share of ``error``, down to 1e-10: an integral by the trapezoidal rule, which converges
    geometrically. Hale, Higham and Trefethen 2008, doi:10.1137/070700607, method 3.
    """
    ratio = lowest / highest
    quarter = float(ellipkm1(ratio))  # of the period of the functions with parameter 1 - ratio
    count = math.ceil(math.log(4 / error) * math.log(4 / math.sqrt(ratio)) / math.pi**2)
    found = []
    for i in range(count):
        sn, cn, dn, _ = map(float, ellipj((i + 0.5) * quarter / count, 1 - ratio))
        weight = 2 * quarter * math.sqrt(lowest) / (math.pi * count) * dn / cn**2
        found.append((lowest * (sn / cn) ** 2, weight))
    return found


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
