"""Polar factors and inverse square roots, for https://arxiv.org/abs/2412.00081."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32, singular_zero
from tsv_bench.linalg.svd import CHUNK, eigh, lower_gram, times_in_float64, truncated_svd

POLAR_ROUTES = ("eigen", "svd")
WELL_CONDITIONED = 30  # the most that it multiplies rounding errors by: to 2e-6 in float32


def polar_factor(a: Float[Tensor, "m n"], via: str = "eigen") -> Float[Tensor, "m n"]:
    """Return the matrix with orthonormal columns (rows, if wide) that is nearest to ``a``.

    Equal to the unitary factor of `scipy.linalg.polar` at full rank. ``via`` "svd" is u @ vh;
    "eigen" is a (a^T a)^(-1/2) with the Gram matrix of the smaller side in float64, because in
    float32 the square of the condition number ruins it. They differ by rounding only.

    If ``a`` lacks rank, the nearest such matrix is not unique. The partial isometry is returned,
    which is: orthonormal on the directions that ``a`` spans, zero on the others. Singular values
    count as zero up to `singular_zero` of the largest, with "eigen" up to 1.5e-7 at least.

    Raises ValueError for another ``via``.
    """
    check_polar(via)
    a = at_least_float32(a)
    if via == "svd":
        zero = singular_zero(a.dtype)
        u, s, vh = truncated_svd(a, min(a.shape), "svd")
        return u * (s > zero * s[:1]) @ vh
    return _polar(a).to(a.dtype)


def _polar(a: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Return the polar factor in float64, by the Gram matrix of the smaller side."""
    if a.shape[1] > a.shape[0]:
        return _polar(a.mT).mT
    return InverseRoot(a).times(a.mT.double()).mT


def polar_product(
    u: Float[Tensor, "m k"], s: Float[Tensor, " k"], vh: Float[Tensor, "k n"], via: str = "eigen"
) -> Float[Tensor, "m n"]:
    """Return polar_factor(u) * s @ polar_factor(vh), without the factors if ``via`` is "eigen"."""
    if via == "svd":
        return polar_factor(u, via) * s @ polar_factor(vh, via)
    if u.shape[0] < vh.shape[1]:
        return polar_product(vh.mT, s, u.mT).mT.contiguous()
    # The small matrices are multiplied first, with each other.
    right = s[:, None] * _polar(vh)
    if len(u) < len(s):
        return InverseRoot(u.mT).times(times_in_float64(u[None], right[None])[0]).to(u.dtype)
    # The largest is multiplied last, in its own type if its condition number allows that.
    root = InverseRoot(u)
    wide = torch.float64 if root.condition > WELL_CONDITIONED else u.dtype
    return (u.to(wide) @ root.times(right).to(wide)).to(u.dtype)


class InverseRoot:
    """(a^T a)^(-1/2) in float64 of a matrix that is at least as tall as wide.

    Zero on the directions that ``a`` does not span. `condition` is the condition number of ``a``,
    `nuclear_norm` the sum of its singular values.
    """

    def __init__(self, a: Float[Tensor, "m n"]) -> None:
        gram = sum(lower_gram(rows.double()) for rows in a.split(CHUNK))
        values, self._q = eigh(gram)
        # The eigenvalues are squares, off by some units in the last place of the largest.
        zero = max(singular_zero(a.dtype) ** 2, 100 * torch.finfo(torch.float64).eps)
        spanned = values > zero * values[-1:]
        self._root = torch.where(spanned, values, 1).rsqrt() * spanned
        lowest, highest = self._root.aminmax() if len(values) else (1.0, 1.0)
        self.condition = float(highest / lowest) if lowest else math.inf
        self.nuclear_norm = float((self._root * values).sum())  # the sum of singular values

    def times(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "n columns"]:
        """Return (a^T a)^(-1/2) @ x, for a float64 ``x``."""
        if x.shape[1] < len(x):
            return self._q @ (self._root[:, None] * (self._q.mT @ x))
        return (self._q * self._root @ self._q.mT) @ x


def check_polar(via: str) -> None:
    """Raise ValueError unless ``via`` names a way to compute the polar factor."""
    if via not in POLAR_ROUTES:
        raise ValueError(f"polar={via!r} is not a route to the polar factor: {POLAR_ROUTES}.")
