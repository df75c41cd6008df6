"""Products of two matrices whose singular values are all set to their mean."""

import logging

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.block_bidiagonal import LargePolar
from tsv_bench.linalg.polar import InverseRoot

logger = logging.getLogger(__name__)

FEW = 1024  # columns up to which eigenvectors cost little


def flat_product(
    u: Float[Tensor, "m k"], v: Float[Tensor, "k n"], exact: bool = True
) -> Float[Tensor, "m n"]:
    """Return polar(u) @ polar(v) times the mean singular value of each. All are in float64.

    polar(a) is `polar_factor`: zero on directions that ``a`` does not span, whose zero singular
    values count in the mean. Not ``exact``: it is rounded as in float32 where a matrix is large.
    """
    of_v = polar(v if v.shape[0] >= v.shape[1] else v.mT, exact)
    whole = of_v.whole() if v.shape[0] >= v.shape[1] else of_v.whole().mT
    of_u = polar(u if u.shape[0] >= u.shape[1] else u.mT, exact)
    product = of_u.times(whole) if u.shape[0] >= u.shape[1] else of_u.transposed_times(whole)
    level = (of_u.nuclear_norm / min(u.shape)) * (of_v.nuclear_norm / min(v.shape))
    return product.mul_(level)


class PolarByEigenvectors:
    """The polar factor of a matrix that is at least as tall as wide, as `LargePolar` has it.

    By the eigenvectors of the matrix's squares; in float64.
    """

    def __init__(self, a: Float[Tensor, "m n"]) -> None:
        self._a, self._root = a, InverseRoot(a)
        self.nuclear_norm = self._root.nuclear_norm

    def whole(self) -> Float[Tensor, "m n"]:
        """Return the polar factor."""
        return self._root.times(self._a.mT).mT

    def times(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "m columns"]:
        """Return the polar factor @ x."""
        return self._a @ self._root.times(x)

    def transposed_times(self, x: Float[Tensor, "m columns"]) -> Float[Tensor, "n columns"]:
        """Return the polar factor's transpose @ x."""
        return self._root.times(self._a.mT @ x)


def polar(a: Float[Tensor, "m n"], exact: bool) -> LargePolar | PolarByEigenvectors:
    """Return the polar factor of a matrix in float64 that is at least as tall as wide."""
    if not exact and a.shape[1] > FEW and not a.is_cuda:
        for dtype in (torch.float32, torch.float64):
            try:
                return LargePolar(a.to(dtype, copy=True))
            except ArithmeticError as error:
                logger.info("polar factor of %s not in %s: %s", tuple(a.shape), dtype, error)
    return PolarByEigenvectors(a)
