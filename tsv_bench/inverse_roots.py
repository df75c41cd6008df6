"""Inverse square roots of symmetric matrices on a CPU, without their eigenvectors."""

import math

import torch
from jaxtyping import Float
from scipy.linalg import eigvalsh_tridiagonal
from scipy.special import ellipj, ellipkm1
from torch import Tensor

from tsv_bench.lapack import Tridiagonal, call

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
