"""Polar factors and inverse square roots, for https://arxiv.org/abs/2412.00081."""

import logging
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.block_bidiagonal import LargePolar
from tsv_bench.linalg.precision import at_least_float32, singular_zero
from tsv_bench.linalg.svd import CHUNK, eigh, lower_gram, times_in_float64, truncated_svd
from tsv_bench.linalg.tridiagonal_roots import InverseRootOfMatrix

logger = logging.getLogger(__name__)

POLAR_ROUTES = ("eigen", "svd")
WELL_CONDITIONED = 30  # the most that it multiplies rounding errors by: to 2e-6 in float32
# Columns from which a tridiagonal form takes as long as a block bidiagonal one in float32: it goes
# through the whole matrix again and again, which then is larger than a processor's cache.
LARGE = 2048
FEW = 256  # columns up to which eigenvectors cost next to nothing
# Condition number of a^T a from which eigenvectors tell what is spanned: a singular value at the
# limit is off by 1e-5 of itself either way.
LARGEST_CONDITION = 1e11
POLE_ERROR = 1e-9  # relative, of a root of float32 matrices: their rounding is sixty times as much


def polar_factor(a: Float[Tensor, "m n"], via: str = "eigen") -> Float[Tensor, "m n"]:
    """Return the matrix with orthonormal columns (rows, if wide) that is nearest to ``a``.

    Equal to the unitary factor of `scipy.linalg.polar` at full rank. ``via`` "svd" is u @ vh;
    "eigen" is a (a^T a)^(-1/2) with the Gram matrix of the smaller side in float64, because in
    float32 the square of the condition number ruins it. Where eigenvectors cost much, a tridiagonal
    form takes their place. They differ by rounding only.

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
    times, _ = inverse_root(a)
    return times(a.double())


def polar_product(
    u: Float[Tensor, "m k"], s: Float[Tensor, " k"], vh: Float[Tensor, "k n"], via: str = "eigen"
) -> Float[Tensor, "m n"]:
    """Return polar_factor(u) * s @ polar_factor(vh), without the factors if ``via`` is "eigen"."""
    if via == "svd":
        return polar_factor(u, via) * s @ polar_factor(vh, via)
    if u.shape[0] < vh.shape[1]:
        return polar_product(vh.mT, s, u.mT).mT.contiguous()
    # The small matrices are multiplied first, with each other; as rows, which are rotated in place.
    rows = _polar(vh.mT) * s
    if (large := _large_polar(u if len(u) >= len(s) else u.mT)) is not None:
        times = large.times if len(u) >= len(s) else large.transposed_times
        return times(rows.mT).to(u.dtype)
    if len(u) < len(s):
        times, _ = inverse_root(u.mT)
        return times(times_in_float64(u[None], rows.mT[None])[0].mT).mT.to(u.dtype)
    # The largest is multiplied last, in its own type if its condition number allows that.
    times, condition = inverse_root(u)
    wide = torch.float64 if condition > WELL_CONDITIONED else u.dtype
    rows, u_wide = times(rows.to(wide)), u.to(wide)
    # Never two matrices that lie by columns: some BLAS take four times as long for these.
    product = u_wide @ rows.mT if u.is_contiguous() else (rows @ u_wide.mT).mT
    return product.to(u.dtype)


def _large_polar(a: Float[Tensor, "m n"]) -> LargePolar | None:
    """Return the polar factor if the matrix is large and float32 has enough digits for it."""
    if a.shape[1] <= LARGE or a.dtype != torch.float32 or a.is_cuda:
        return None
    try:
        return LargePolar(a.clone(memory_format=torch.contiguous_format))
    except ArithmeticError as failure:
        logger.info("polar factor of %s not in float32: %s", tuple(a.shape), failure)
        return None


def inverse_root(a: Float[Tensor, "m n"]) -> tuple[Callable[[Tensor], Tensor], float]:
    """Return how to multiply rows by (a^T a)^(-1/2) in their type, and a's condition number.

    ``a`` is at least as tall as wide. As `InverseRoot`, which takes over if the matrix is small or
    lacks rank, and on a GPU.
    """
    gram = gram_in_float64(a)
    if a.shape[1] > FEW and not a.is_cuda:
        error = POLE_ERROR if a.dtype == torch.float32 else None
        try:
            quick = InverseRootOfMatrix(gram, LARGEST_CONDITION, error)
        except ArithmeticError as failure:
            logger.info("inverse root of %s by eigenvectors: %s", a.shape[1], failure)
        else:
            return lambda rows: quick.times(rows, rows.dtype), math.sqrt(quick.condition)
    root = InverseRoot(a, gram)
    return lambda rows: root.times(rows.mT.double()).mT.to(rows.dtype), root.condition


def gram_in_float64(a: Float[Tensor, "m n"]) -> Float[Tensor, "n n"]:
    """Return the lower triangle of a^T a in float64."""
    return sum(lower_gram(rows.double()) for rows in a.split(CHUNK))


class InverseRoot:
    """(a^T a)^(-1/2) in float64 of a matrix that is at least as tall as wide.

    Zero on the directions that ``a`` does not span. `condition` is the condition number of ``a``,
    `nuclear_norm` the sum of its singular values.
    """

    def __init__(self, a: Float[Tensor, "m n"], gram: Float[Tensor, "n n"] | None = None) -> None:
        """``gram`` is `gram_in_float64` of ``a``; null: it is computed."""
        values, self._q = eigh(gram_in_float64(a) if gram is None else gram)
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
