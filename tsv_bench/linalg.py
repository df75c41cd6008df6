"""Singular value decompositions and polar factors, for https://arxiv.org/abs/2412.00081."""

import logging
import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

logger = logging.getLogger(__name__)

POLAR_ROUTES = ("svd", "eigen")


def kept_rank(full_rank: int, num_tasks: int, rank_fraction: float | int | None) -> int:
    """Singular triplets that each task keeps of ``full_rank``; at least one.

    ``rank_fraction`` is the share a task keeps, in (0, 1]; None is an equal share, 1 / num_tasks.
    """
    check_rank_fraction(rank_fraction)
    if rank_fraction is None:
        # Integer division, not int(full_rank * (1 / num_tasks)): the latter gives 1 for 98 and 49.
        rank = full_rank // num_tasks
    else:
        # 0.29 * 100 is 28.999999999999996; nine decimals are far finer than any fraction given.
        rank = math.floor(round(full_rank * rank_fraction, 9))
    if rank == 0:
        _warn_that_one_is_kept(full_rank, num_tasks, rank_fraction)
    return max(rank, 1)


def check_rank_fraction(rank_fraction: float | int | None) -> None:
    """ValueError unless ``rank_fraction`` is None or a number in (0, 1]."""
    if rank_fraction is None:
        return
    if not isinstance(rank_fraction, int | float) or not 0 < rank_fraction <= 1:
        raise ValueError(
            f"rank_fraction={rank_fraction!r} is not in (0, 1]: every task keeps at least one and "
            f"at most all of its singular vectors. Leave it null for 1 / number of tasks."
        )


@cache  # once for each case, not once for each layer and task
def _warn_that_one_is_kept(
    full_rank: int, num_tasks: int, rank_fraction: float | int | None
) -> None:
    share = f"1/{num_tasks}" if rank_fraction is None else rank_fraction
    logger.warning(
        "a share of %s of %d singular vectors is less than one; each of %d tasks keeps one.",
        share, full_rank, num_tasks,
    )  # fmt: skip


def truncated_svd(
    matrices: Float[Tensor, "*batch m n"], rank: int
) -> tuple[
    Float[Tensor, "*batch m rank"], Float[Tensor, "*batch rank"], Float[Tensor, "*batch rank n"]
]:
    """The ``rank`` leading singular triplets u, s, vh; in float32 at least."""
    if matrices.shape[-1] > matrices.shape[-2]:
        # LAPACK takes twice as long for a wide matrix as for its transpose.
        u, s, vh = truncated_svd(matrices.mT, rank)
        return vh.mT, s, u.mT
    u, s, vh = _svd(at_least_float32(matrices))
    return u[..., :rank], s[..., :rank], vh[..., :rank, :]


def _svd(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    try:
        return torch.linalg.svd(matrices, full_matrices=False)
    except torch.linalg.LinAlgError as error:
        if matrices.dtype == torch.float64:
            raise
        logger.warning("SVD of %s again in float64: %s", tuple(matrices.shape), error)
        u, s, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
        return u.to(matrices.dtype), s.to(matrices.dtype), vh.to(matrices.dtype)


def singular_zero(dtype: torch.dtype) -> float:
    """Singular values up to this multiple of the largest are rounding errors of zero.

    Ten units: rounding leaves about one, and the worst concatenation measured on fine-tuned CLIPs
    (condition number 2e4, so a smallest value of 400 units in float32) must stay above.
    """
    return 10 * torch.finfo(dtype).eps


def polar_factor(a: Float[Tensor, "m n"], via: str = "svd") -> Float[Tensor, "m n"]:
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
    zero = singular_zero(a.dtype)
    if via == "svd":
        u, s, vh = truncated_svd(a, min(a.shape))
        return u * (s > zero * s[:1]) @ vh
    if a.shape[1] > a.shape[0]:
        return polar_factor(a.mT, via).mT
    double = a.double()
    values, q = torch.linalg.eigh(double.mT @ double)
    # The eigenvalues are squares, with errors of some float64 units of the largest.
    zero = max(zero**2, 100 * torch.finfo(torch.float64).eps)
    spanned = values > zero * values[-1:]
    root = torch.where(spanned, values, 1).rsqrt() * spanned
    return (double @ (q * root @ q.mT)).to(a.dtype)


def check_polar(via: str) -> None:
    """ValueError unless ``via`` names a way to compute the polar factor."""
    if via not in POLAR_ROUTES:
        raise ValueError(f"polar={via!r} is not a route to the polar factor: {POLAR_ROUTES}.")


def at_least_float32(a: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Half precision is widened, as nothing decomposes it; float64 stays."""
    return a.to(torch.promote_types(a.dtype, torch.float32))
