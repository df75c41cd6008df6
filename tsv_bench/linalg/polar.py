"""Polar factors and inverse square roots, for https://arxiv.org/abs/2412.00081."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32, singular_zero
from tsv_bench.linalg.svd import CHUNK, _eigh, _times, lower_gram, truncated_svd

POLAR_ROUTES = ("eigen", "svd")
WELL_CONDITIONED = 30  # multiplies rounding errors by this at most: 2e-6 in float32


def polar_factor(a: Float[Tensor, "m n"], via: str = "eigen") -> Float[Tensor, "m n"]:
    """The matrix with orthonormal columns (rows, if wide) that is nearest to ``a``.

    ``via`` "svd" is u @ vh; "eigen" is a (a^T a)^(-1/2) with the Gram matrix of the smaller side
    in float64, as in float32 the condition number's square ruins it. They differ by rounding only.

    Where ``a`` lacks rank (singular values within `singular_zero` of the largest; "eigen" cannot
    tell values below 1.5e-7 of it from zero), the nearest such matrix is not unique. What is
    returned then is the unique partial isometry: orthonormal on the directions that ``a`` spans,
    zero on the others; so zero for zero.
    """
    check_polar(via)
    a = at_least_float32(a)
    if via == "svd":
        zero = singular_zero(a.dtype)
        u, s, vh = truncated_svd(a, min(a.shape), "svd")
        return u * (s > zero * s[:1]) @ vh
    return _polar(a).to(a.dtype)


def _polar(a: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """The polar factor in float64, by the Gram matrix of the smaller side."""
    if a.shape[1] > a.shape[0]:
        return _polar(a.mT).mT
    return InverseRoot(a).times(a.mT.double()).mT


def polar_product(
    u: Float[Tensor, "m k"], s: Float[Tensor, " k"], vh: Float[Tensor, "k n"], via: str = "eigen"
) -> Float[Tensor, "m n"]:
    """polar_factor(u) * s @ polar_factor(vh)."""
    if via == "svd":
        return polar_factor(u, via) * s @ polar_factor(vh, via)
    if u.shape[0] < vh.shape[1]:
        return polar_product(vh.mT, s, u.mT).mT.contiguous()
    # Small matrices are multiplied with small ones for as long as there are any.
    right = s[:, None] * _polar(vh)
    if len(u) < len(s):
        return InverseRoot(u.mT).times(_times(u[None], right[None])[0]).to(u.dtype)
    # The largest is multiplied last, and in its own type where its condition allows that.
    root = InverseRoot(u)
    wide = torch.float64 if root.condition > WELL_CONDITIONED else u.dtype
    return (u.to(wide) @ root.times(right).to(wide)).to(u.dtype)


class InverseRoot:
    """(a^T a)^(-1/2) in float64, zero where ``a``, at least as tall as wide, spans nothing."""

    def __init__(self, a: Float[Tensor, "m n"]) -> None:
        gram = sum(lower_gram(rows.double()) for rows in a.split(CHUNK))
        values, self._q = _eigh(gram)
        # The eigenvalues are squares, with errors of some float64 units of the largest.
        zero = max(singular_zero(a.dtype) ** 2, 100 * torch.finfo(torch.float64).eps)
        spanned = values > zero * values[-1:]
        self._root = torch.where(spanned, values, 1).rsqrt() * spanned
        lowest, highest = self._root.aminmax() if len(values) else (1.0, 1.0)
        self.condition = float(highest / lowest) if lowest else math.inf  # of a

    def times(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "n columns"]:
        if x.shape[1] < len(x):
            return self._q @ (self._root[:, None] * (self._q.mT @ x))
        return (self._q * self._root @ self._q.mT) @ x


def check_polar(via: str) -> None:
    """ValueError unless ``via`` names a way to compute the polar factor."""
    if via not in POLAR_ROUTES:
        raise ValueError(f"polar={via!r} is not a route to the polar factor: {POLAR_ROUTES}.")
