"""Inverse square roots of positive definite matrices on a CPU, without their eigenvectors.

A matrix is brought to tridiagonal form. The inverse of a tridiagonal matrix has rank one above its
diagonal, so the inverse root, a sum of such inverses, has low rank beside its diagonal blocks.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.lapack import Tridiagonal, call, lowest_and_highest

LARGEST_CONDITION = 1e6  # condition number up to which the inverse root is taken this way
# Rows for each column from which it pays to write out the root: rotating a row there and back takes
# three times as long as multiplying it.
MANY = 1.5
BLOCK = 64  # rows whose inverse root is written out: fewer take more steps, more take more products


class InverseRootOfMatrix:
    """matrix^(-1/2) of a positive definite matrix, in less than half the time of eigenvectors.

    ``matrix``: [n, n], float32 or float64 on the CPU; only its lower triangle is read. ``error``
    is relative; null is the rounding of the matrix's type. Raises ArithmeticError if LAPACK gives
    up or the condition number is above ``largest_condition``.
    """

    def __init__(
        self,
        matrix: Float[Tensor, "n n"],
        largest_condition: float = LARGEST_CONDITION,
        error: float | None = None,
    ) -> None:
        self._tridiagonal = Tridiagonal(matrix)
        diagonal = self._tridiagonal.diagonal.double()
        off_diagonal = self._tridiagonal.off_diagonal.double()
        lowest, highest = lowest_and_highest(diagonal, off_diagonal)
        self.condition = highest / lowest if lowest > 0 else math.inf
        if self.condition > largest_condition:
            raise ArithmeticError(f"a condition number of {self.condition:.1e} is too large.")
        error = error or torch.finfo(matrix.dtype).eps
        self._root = TridiagonalRoot(diagonal, off_diagonal, poles(lowest, highest, error))

    def times(
        self, rows: Float[Tensor, "m n"], dtype: torch.dtype | None = None
    ) -> Float[Tensor, "m n"]:
        """Return rows @ matrix^(-1/2), computed in ``dtype``; null is the matrix's type.

        Float32 takes half the time; it rounds by 1e-6 where the condition number is below 1000.
        """
        dtype = dtype or self._tridiagonal.diagonal.dtype
        n = rows.shape[1]
        if len(rows) > MANY * n:
            return rows.to(dtype) @ self.times(torch.eye(n)).to(dtype)
        rotated = rows.to(dtype, copy=True, memory_format=torch.contiguous_format)
        self._tridiagonal.apply_q(rotated, transposed=True)
        rotated = self._root.times(rotated.double()).to(dtype)
        self._tridiagonal.apply_q(rotated)
        return rotated


class TridiagonalRoot:
    """The sum of weight * (t + shift)^-1 over ``poles``, of a positive definite tridiagonal t.

    ``diagonal`` [n] and ``off_diagonal`` [n - 1] are t's, in float64. The sum is exact in each of
    its entries, but for rounding: above the diagonal an inverse is a running product of ratios, and
    nothing cancels. Raises ArithmeticError if t is not positive definite.
    """

    def __init__(
        self,
        diagonal: Float[Tensor, " n"],
        off_diagonal: Float[Tensor, " below"],
        poles: list[tuple[float, float]],
    ) -> None:
        self._n, count = len(diagonal), len(poles)
        shifts, weights = diagonal.new_tensor(poles).T.contiguous()
        ratios, inverses = _inverses(diagonal, off_diagonal, shifts)
        num_blocks = -(-self._n // BLOCK)
        padding = (0, num_blocks * BLOCK - self._n)
        ratios, inverses = (
            torch.nn.functional.pad(x, padding).view(count, num_blocks, BLOCK)
            for x in (ratios, inverses * weights[:, None])
        )
        # Entry (i, j) of an inverse is the product of the ratios from i to j - 1, times entry
        # (j, j). Products of many may be so small that processors take long for each.
        blocks = diagonal.new_zeros(num_blocks, BLOCK, BLOCK)
        products = torch.ones_like(ratios)  # from each row i on, as many as steps were made
        first = torch.ones_like(ratios)  # from the block's first row to before each
        for step in range(BLOCK):
            rest = products[..., : BLOCK - step]
            entries = (rest * inverses[..., step:]).sum(0)
            blocks.diagonal(step, 1, 2).copy_(entries)
            blocks.diagonal(-step, 1, 2).copy_(entries)
            first[..., step] = rest[..., 0]
            rest *= ratios[..., step:]
        # What each row is multiplied by beyond its block: what is left has taken its block's end.
        self._ends = _without_tiny(products).unbind(1)
        self._starts = _without_tiny(first).unbind(1)
        self._weighted = _without_tiny(first * inverses).unbind(1)
        self._blocks = _without_tiny(blocks).unbind()

    def times(self, rows: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """Return rows @ the sum. Its memory is a few rows for each pole."""
        out = torch.empty_like(rows)
        parts = rows.split(BLOCK, 1)
        for part, block, found in zip(parts, self._blocks, out.split(BLOCK, 1), strict=True):
            size = part.shape[1]
            torch.matmul(part, block[:size, :size], out=found)
        before = None
        for i, found in enumerate(out.split(BLOCK, 1)):
            size = found.shape[1]
            if before is not None:
                found.addmm_(before, self._weighted[i][:, :size])
            passed = parts[i] @ self._ends[i][:, :size].mT
            before = passed if before is None else passed.addcmul_(before, self._ends[i][:, 0])
        after = None
        for i, found in reversed(list(enumerate(out.split(BLOCK, 1)))):
            size = found.shape[1]
            if after is not None:
                found.addmm_(after, self._ends[i][:, :size])
            passed = parts[i] @ self._weighted[i][:, :size].mT
            after = passed if after is None else passed.addcmul_(after, self._ends[i][:, 0])
        return out


def _inverses(
    diagonal: Float[Tensor, " n"],
    off_diagonal: Float[Tensor, " below"],
    shifts: Float[Tensor, " count"],
) -> tuple[Float[Tensor, "count n"], Float[Tensor, "count n"]]:
    """Return the ratios and the diagonals of the inverses of t + shift.

    Entry (i, j) of an inverse is ratio i times entry (i + 1, j), for i < j. The last ratio is zero.
    """
    n, count = len(diagonal), len(shifts)
    # All in one call each: a matrix of one block for each shift.
    pivots = diagonal + shifts[:, None]
    ratios = torch.nn.functional.pad(off_diagonal, (0, 1)).repeat(count, 1)
    call("dpttrf", count * n, pivots, ratios)
    # Entry (i, i) of an inverse is 1 / pivot + ratio^2 times entry (i + 1, i + 1).
    band = torch.ones(count * n, 2, dtype=torch.float64)
    band[1:, 0] = -ratios.flatten()[:-1].square()
    inverses = pivots.reciprocal_()
    call("dtbtrs", b"U", b"N", b"U", count * n, 1, 1, band, 2, inverses, count * n)
    return ratios.neg_(), inverses


TINY = 1e-150  # its square is no longer zero, nor so small that processors take long for it


def _without_tiny(x: Tensor) -> Tensor:
    return x.masked_fill_(x.abs() < TINY, 0)


def poles(lowest: float, highest: float, error: float) -> list[tuple[float, float]]:
    """Return shifts and weights such that the sum of weight / (x + shift) is x^(-1/2).

    For x from ``lowest`` to ``highest``, within a relative ``error`` of 1e-10 or more. The sum is
    an integral by the trapezoidal rule, which converges geometrically: Hale, Higham and Trefethen
    2008, doi:10.1137/070700607, method 3.
    """
    from scipy.special import ellipj, ellipkm1  # here: its import takes a fifth of a second

    ratio = lowest / highest
    quarter = float(ellipkm1(ratio))  # of the elliptic functions' period, at 1 - ratio
    count = math.ceil(math.log(4 / error) * math.log(4 / math.sqrt(ratio)) / math.pi**2)
    found = []
    for i in range(count):
        sn, cn, dn, _ = map(float, ellipj((i + 0.5) * quarter / count, 1 - ratio))
        weight = 2 * quarter * math.sqrt(lowest) / (math.pi * count) * dn / cn**2
        found.append((lowest * (sn / cn) ** 2, weight))
    return found
