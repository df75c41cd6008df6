"""Polar factors of large matrices by a block bidiagonal form, without singular vectors."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.tridiagonal_roots import poles

BLOCK = 32  # columns reduced together: fewer make slower products, more make the systems larger
COLUMNS = 128  # solved for at a time: with twenty poles they take 60 MB where there are 3072 rows
# Condition number of a^T a up to which float64 solves with it: a singular value at the limit is off
# by 1e-5 of itself, one of a few thousand.
LARGEST_CONDITION = 1e11
ERROR = 5e-8  # relative, of the polar factor's singular values before rounding
ROUNDING = 8  # units in the last place by which a reduction to float32 moved a matrix: 7 to 9.5
LARGEST_ROUNDING = 2e-5  # of the polar factor, as bounded: about a fifth of the bound was measured


class LargePolar:
    """The polar factor of a matrix of full rank that is at least as tall as wide.

    ``a`` is float32 or float64, and its memory is taken. The rounding is that of its type: 2e-6 to
    3e-6 of the factor were measured in float32. Given and returned is float64. Raises
    ArithmeticError where the rounding may be above `LARGEST_ROUNDING`, and if the condition number
    of a^T a may be above `LARGEST_CONDITION`.

    `nuclear_norm` is the sum of the singular values.
    """

    def __init__(self, a: Float[Tensor, "m n"]) -> None:
        unit, (m, n) = torch.finfo(a.dtype).eps, a.shape
        self._form = BlockBidiagonal(a)
        self._root = BandRoot(self._form)
        self.nuclear_norm = self._root.nuclear_norm
        # A random error of a becomes one of the polar factor by 1 / (s + t) for each two singular
        # values s and t, and by 1 / s in each direction that a has too many.
        inner = n / m * self._root.mean_of_inverses**2 / 2
        outer = (m - n) / m * self._root.mean_of_squared_inverses
        rounding = ROUNDING * unit * math.sqrt((inner + outer) * self._root.mean_of_squares)
        if rounding > LARGEST_ROUNDING:
            raise ArithmeticError(f"rounding by {rounding:.1e} is too large.")

    def whole(self) -> Float[Tensor, "m n"]:
        """Return the polar factor."""
        return self.times(torch.eye(self._form.width, device=self._form.device))

    def times(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "m columns"]:
        """Return the polar factor @ x."""
        form = self._form
        return form.from_left(form.times(self._root.times(form.to_right(x))))

    def transposed_times(self, x: Float[Tensor, "m columns"]) -> Float[Tensor, "n columns"]:
        """Return the polar factor's transpose @ x."""
        form = self._form
        return form.from_right(self._root.times(form.transposed_times(form.to_left(x))))


class Reflections(NamedTuple):
    """The orthogonal matrix 1 - v t v^T on the coordinates from ``start`` on, 1 on the others."""

    start: int
    v: Float[Tensor, "rows k"]
    t: Float[Tensor, "k k"]

    def turn(self, x: Float[Tensor, "n columns"]) -> None:
        """Multiply x from the left by it, in place."""
        x = x[self.start :]
        x.addmm_(self.v, self.t @ (self.v.mT @ x), alpha=-1)

    def turn_back(self, x: Float[Tensor, "n columns"]) -> None:
        """Multiply x from the left by its transpose, in place."""
        x = x[self.start :]
        x.addmm_(self.v, self.t.mT @ (self.v.mT @ x), alpha=-1)


class BlockBidiagonal:
    """A matrix, at least as tall as wide, as q b p^T: q's columns and p are orthonormal.

    b is square, has blocks on its diagonal and next to it on the right, `diagonal` and `beside`,
    and is zero elsewhere. They are in float64, as are all products. q and p are in the type of
    ``a``, whose memory is taken.
    """

    def __init__(self, a: Float[Tensor, "m n"]) -> None:
        (self._height, self.width), self._dtype, self.device = a.shape, a.dtype, a.device
        self.diagonal: list[Tensor] = []
        self.beside: list[Tensor] = []
        self._left: list[Reflections] = []
        self._right: list[Reflections] = []
        for start in range(0, self.width, BLOCK):
            stop = min(start + BLOCK, self.width)
            left, block = reflections(a[start:, start:stop], start)
            self._left.append(left)
            self.diagonal.append(block.double())
            if stop < self.width:
                rest = a[:, stop:]
                left.turn_back(rest)
                right, block = reflections(rest[start:stop].mT, stop)
                self._right.append(right)
                self.beside.append(block.mT.double())
                right._replace(start=0).turn_back(rest[stop:].mT)

    def to_right(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "n columns"]:
        """Return p^T x."""
        x = self._copied(x)
        for each in self._right:
            each.turn_back(x)
        return x.double()

    def from_right(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "n columns"]:
        """Return p x."""
        x = self._copied(x)
        for each in reversed(self._right):
            each.turn(x)
        return x.double()

    def to_left(self, x: Float[Tensor, "m columns"]) -> Float[Tensor, "n columns"]:
        """Return q^T x."""
        x = self._copied(x)
        for each in self._left:
            each.turn_back(x)
        return x[: self.width].double()

    def from_left(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "m columns"]:
        """Return q x."""
        whole = x.new_zeros(self._height, x.shape[1], dtype=self._dtype)
        whole[: self.width] = x
        for each in reversed(self._left):
            each.turn(whole)
        return whole.double()

    def _copied(self, x: Tensor) -> Tensor:
        return x.to(self._dtype, copy=True, memory_format=torch.contiguous_format)

    def times(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "n columns"]:
        """Return b x."""
        parts = x.split(BLOCK)
        product = [block @ part for block, part in zip(self.diagonal, parts, strict=True)]
        for i, block in enumerate(self.beside):
            product[i].addmm_(block, parts[i + 1])
        return torch.cat(product)

    def transposed_times(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "n columns"]:
        """Return b^T x."""
        parts = x.split(BLOCK)
        product = [block.mT @ part for block, part in zip(self.diagonal, parts, strict=True)]
        for i, block in enumerate(self.beside):
            product[i + 1].addmm_(block.mT, parts[i])
        return torch.cat(product)


def reflections(panel: Float[Tensor, "m k"], start: int) -> tuple[Reflections, Tensor]:
    """Return reflections whose transpose makes a panel upper triangular, and that triangle.

    They act from coordinate ``start`` on. Their vectors are left in the panel.
    """
    factored, tau = torch.geqrf(panel)
    triangle = factored[: len(tau)].triu()
    v = panel[:, : len(tau)]
    v.copy_(factored[:, : len(tau)].tril_(-1))
    v.diagonal().fill_(1)
    # The inverse of t is v^T v above the diagonal and 1/tau on it; tau may be zero.
    mixed = tau[:, None] * (v.mT @ v).triu_(1)
    t = torch.linalg.solve_triangular(mixed, torch.diag(tau), upper=True, unitriangular=True)
    return Reflections(start, v, t), triangle


class BandRoot:
    """(b^T b)^(-1/2) of a block bidiagonal b: a sum of inverses of b^T b + shift.

    `nuclear_norm` is the sum of b's singular values; means of their squares, inverses and squared
    inverses are there, too. Raises ArithmeticError if the condition number of b^T b may be above
    `LARGEST_CONDITION`.
    """

    def __init__(self, form: BlockBidiagonal) -> None:
        band, n = Band.of_squares(form), form.width
        trace = float(BandInverses(band, [0.0]).traces)
        lowest, highest = 1 / trace, max(1 / trace, band.bound())  # bounds of the eigenvalues
        if not highest <= LARGEST_CONDITION * lowest:
            raise ArithmeticError(f"a condition number of {highest / lowest:.1e} is too large.")
        shifts, weights = zip(*poles(lowest, highest, ERROR), strict=True)
        self._inverses = BandInverses(band, shifts)
        self._weights = band.diagonal[0].new_tensor(weights)
        lost = self._weights.new_tensor(shifts) * self._inverses.traces
        self.nuclear_norm = float(self._weights @ (n - lost))
        self.mean_of_squares = float(sum(block.trace() for block in band.diagonal)) / n
        self.mean_of_inverses = float(self._weights @ self._inverses.traces) / n
        self.mean_of_squared_inverses = trace / n

    def times(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "n columns"]:
        """Return (b^T b)^(-1/2) @ x."""
        return self._inverses.times(x, self._weights)


class Band(NamedTuple):
    """A symmetric matrix that has blocks on its diagonal and next to it, and zeros elsewhere."""

    diagonal: list[Float[Tensor, "k k"]]
    beside: list[Float[Tensor, "k next"]]

    @classmethod
    def of_squares(cls, form: BlockBidiagonal) -> "Band":
        """Return b^T b."""
        diagonal = [block.mT @ block for block in form.diagonal]
        for i, block in enumerate(form.beside):
            diagonal[i + 1] += block.mT @ block
        return cls(diagonal, [d.mT @ u for d, u in zip(form.diagonal, form.beside, strict=False)])

    def bound(self) -> float:
        """Return an upper bound on the eigenvalues, from the norms of the blocks in a row."""
        own, beside = ([_norm(block) for block in blocks] for blocks in self)
        sides = [before + after for before, after in pairwise([0.0, *beside, 0.0])]
        return max(map(sum, zip(own, sides, strict=True)))


def _norm(block: Tensor) -> float:
    return float(torch.linalg.matrix_norm(block, 2))


class BandInverses:
    """The inverses of a positive definite band + shift, for several shifts at once.

    `traces` are theirs. Raises ArithmeticError if one is not positive definite.
    """

    def __init__(self, band: Band, shifts: Sequence[float]) -> None:
        shift = band.diagonal[0].new_tensor(shifts)[:, None, None]
        self._inverses: list[Tensor] = []  # of the blocks that elimination leaves: [shifts, k, k]
        self._multipliers: list[Tensor] = []  # inverse @ block beside it: [shifts, k, next]
        for i, block in enumerate(band.diagonal):
            left = block + shift * torch.eye(len(block)).to(block)
            if i:
                left -= band.beside[i - 1].mT @ self._multipliers[-1]
            factors, failed = torch.linalg.cholesky_ex(left)
            if failed.any():
                raise ArithmeticError("it is not positive definite.")
            self._inverses.append(torch.cholesky_inverse(factors))
            if i < len(band.beside):
                self._multipliers.append(self._inverses[-1] @ band.beside[i])
        self.traces = self._traces()

    def _traces(self) -> Float[Tensor, " shifts"]:
        block = self._inverses[-1]  # on the whole inverse's diagonal, from the last to the first
        total = _trace(block)
        for inverse, multiplier in zip(
            self._inverses[-2::-1], self._multipliers[::-1], strict=True
        ):
            block = inverse + multiplier @ block @ multiplier.mT
            total += _trace(block)
        return total

    def times(
        self, x: Float[Tensor, "n columns"], weights: Float[Tensor, " shifts"]
    ) -> Float[Tensor, "n columns"]:
        """Return the sum of weight times inverse @ x."""
        product = torch.empty_like(x)
        for part, found in zip(x.split(COLUMNS, 1), product.split(COLUMNS, 1), strict=True):
            self._solve(part.split(BLOCK), weights, found.split(BLOCK))
        return product

    def _solve(self, x: Sequence[Tensor], weights: Tensor, product: Sequence[Tensor]) -> None:
        """Write the sum of weight times inverse @ x, all in blocks of rows."""
        rows = [x[0].expand(len(weights), -1, -1)]
        for part, multiplier in zip(x[1:], self._multipliers, strict=True):
            rows.append(torch.baddbmm(part[None], multiplier.mT, rows[-1], alpha=-1))
        below = None
        for i in reversed(range(len(x))):
            solved = self._inverses[i] @ rows.pop()
            if below is not None:
                solved.baddbmm_(self._multipliers[i], below, alpha=-1)
            product[i].copy_((weights @ solved.flatten(1)).view_as(product[i]))
            below = solved


def _trace(blocks: Float[Tensor, "shifts k k"]) -> Float[Tensor, " shifts"]:
    return blocks.diagonal(dim1=1, dim2=2).sum(dim=1)
