"""Singular value decompositions and polar factors, for https://arxiv.org/abs/2412.00081."""

import logging
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.lapack import LeadingEigenvectors
from tsv_bench.linalg.precision import _eps, at_least_float32

logger = logging.getLogger(__name__)

SVD_ROUTES = ("gram", "svd")

# Error that may be left in a leading singular subspace, by the estimate in `_subspace`. Where tasks
# share directions, their concatenation's condition number multiplies it in the merged layer.
LEAK = 4e-7
LARGE_LEAK = 2e-5  # the largest that is left where an SVD in float32 would leave more
LARGE_SQUARE = 1e30
CORRECTABLE = 2e-3  # larger leaks do not shrink as perturbation theory has it
CORRECTIONS = 2  # at most; a third would cost as much as float64 does
EXTRA = 32  # eigenvectors beyond the wanted ones: they catch most of what rounding turns out
CHUNK = 4096  # rows that are widened to float64 at once: of twenty tasks at full rank all are GBs
SMALL = 256  # columns up to which an eigendecomposition in float64 costs next to nothing


def truncated_svd(
    matrices: Float[Tensor, "*batch m n"], rank: int, via: str = "gram"
) -> tuple[
    Float[Tensor, "*batch m rank"], Float[Tensor, "*batch rank"], Float[Tensor, "*batch rank n"]
]:
    """The ``rank`` leading singular triplets u, s, vh; in float32 at least.

    ``via`` "svd" is a full SVD; "gram" goes by the eigenvectors of the smaller Gram matrix: several
    times quicker and, with float64 where it matters, closer to the exact triplets than a float32
    SVD. There is no wider type for float64 matrices: these always get a full SVD.
    """
    check_svd_route(via)
    if matrices.shape[-1] > matrices.shape[-2]:
        # LAPACK takes twice as long for a wide matrix as for its transpose.
        u, s, vh = truncated_svd(matrices.mT, rank, via)
        return vh.mT, s, u.mT
    matrices = at_least_float32(matrices)
    if via == "svd" or matrices.dtype == torch.float64 or matrices.numel() == 0:
        u, s, vh = _svd(matrices)
        return u[..., :rank], s[..., :rank], vh[..., :rank, :]
    lead = matrices.shape[:-2]
    batch = matrices.reshape(-1, *matrices.shape[-2:])
    # A GPU is quickest with all at once; on a CPU one at a time keeps the float64 copies small.
    parts = batch.split(len(batch) if batch.is_cuda else 1)
    triplets = zip(*(_leading_triplets(part, rank) for part in parts), strict=True)
    u, s, vh = (torch.cat(parts) for parts in triplets)
    return u.reshape(*lead, *u.shape[1:]), s.reshape(*lead, rank), vh.reshape(*lead, *vh.shape[1:])


def _leading_triplets(
    a: Float[Tensor, "batch m n"], rank: int
) -> tuple[Float[Tensor, "batch m k"], Float[Tensor, "batch k"], Float[Tensor, "batch k n"]]:
    """Singular triplets of tall float32 matrices by one Rayleigh-Ritz step in float64."""
    basis = torch.linalg.qr(_subspace(a, rank)).Q
    image = _times(a, basis)
    squares, turn = _eigh(image.mT @ image)
    if (squares[:, -rank] > 1e-8 * squares[:, -1]).all():
        squares, turn = squares[:, -rank:].flip(-1), turn[..., -rank:].flip(-1)
        s = squares.sqrt()
        u, vh = image @ (turn / s[:, None]), turn.mT @ basis.mT
    else:  # singular vectors of small values are not orthonormal then
        q, r = torch.linalg.qr(image)
        u, s, wh = _svd(r)
        u, s, vh = q @ u[..., :rank], s[..., :rank], wh[..., :rank, :] @ basis.mT
    return u.to(a.dtype), s.to(a.dtype), vh.to(a.dtype)


def _subspace(a: Float[Tensor, "batch m n"], rank: int) -> Float[Tensor, "batch n width"]:
    """The ``rank`` leading eigenvectors of a^T a and `EXTRA` more, as columns in float64.

    Float32 turns the wanted ones out of the subspace by a leak of about eps * largest eigenvalue /
    (the last wanted eigenvalue - the first left out). That is good enough below `LEAK`, or when
    it is little beside what float32 does to an SVD: eps * last wanted value / (distance of the
    values near it). Each correction multiplies a leak by about itself; a large one needs float64.
    """
    n = a.shape[-1]
    width = min(rank + EXTRA, n)
    leak = torch.full((len(a),), torch.inf, device=a.device)
    gram = lower_gram(a) if n > SMALL and width < n // 2 else None
    if gram is not None and (gram.diagonal(dim1=1, dim2=2) < LARGE_SQUARE).all():
        values, leading, others = _leading_eigh(gram, width)
        gap = values[:, -rank] - values[:, 0]
        leak = _eps(a) * values[:, -1] / gap
        leak[values[:, -1] < 1 / LARGE_SQUARE] = torch.inf  # float32 has few digits for squares
        near = values[:, -rank - 8 :].clamp(min=0).sqrt()[:, :17]  # ascending, around the edge
        wanted, apart = near[:, 8], (near[:, -1] - near[:, 0]) / (near.shape[1] - 1)
        of_an_svd = _eps(a) * wanted / torch.maximum(wanted - near[:, 7], apart)
        leak[leak < (0.5 * of_an_svd).clamp(max=LARGE_LEAK)] = 0
    within = leak < CORRECTABLE
    basis = a.new_empty(len(a), n, width, dtype=torch.float64)
    if within.any():
        basis[within] = leading[within].double()
        for done in range(CORRECTIONS):
            if (leak[within] ** (1 + done) > LEAK).any():
                rest = (found[within] for found in others())
                basis[within] = _corrected(_chosen(a, within), *rest, basis[within])
    if not within.all():
        basis[~within] = _eigh(lower_gram(_chosen(a, ~within).double()))[1][..., -width:]
    return basis


def _chosen(a: Tensor, which: Tensor) -> Tensor:
    return a if which.all() else a[which]  # without a copy, where that is possible


def _corrected(
    a: Float[Tensor, "batch m n"],
    values: Float[Tensor, "batch rest"],
    others: Float[Tensor, "batch n rest"],
    basis: Float[Tensor, "batch n width"],
) -> Float[Tensor, "batch n width"]:
    """Leading eigenvectors of a^T a, by perturbation theory, from approximate ones and the others.

    Each leading one gains, of every eigenvector left out, its share of the residual (in float64)
    over the difference of the eigenvalues.
    """
    basis = torch.linalg.qr(basis).Q
    image = _times(a, basis)
    ritz, turn = _eigh(image.mT @ image)
    basis, image = basis @ turn, image @ turn
    residual = (_times(a.mT, image) - basis * ritz[:, None]).to(a.dtype)
    # Next to each other at the edge, rounding has the last word; but the edge is not wanted.
    ritz = ritz[:, None].to(a.dtype)
    apart = (ritz - values[..., None]).clamp(min=4 * _eps(a) * ritz[..., -1:])
    return basis + (others @ (others.mT @ residual / apart)).double()


def lower_gram(a: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch n n"]:
    """The lower triangle of a^T a, all that `torch.linalg.eigh` reads; half the work of all."""
    n, block = a.shape[-1], 192
    gram = a.new_zeros(*a.shape[:-2], n, n)
    for i in range(0, n, block):
        rows = slice(i, min(i + block, n))
        torch.matmul(a[..., rows].mT, a[..., : rows.stop], out=gram[..., rows, : rows.stop])
    return gram


def _times(a: Float[Tensor, "batch m n"], basis: Float[Tensor, "batch n k"]) -> Tensor:
    """a @ basis in float64, without a float64 copy of all of ``a``."""
    product = basis.new_empty(*a.shape[:-1], basis.shape[-1])
    for i in range(0, a.shape[-2], 512):
        torch.matmul(a[..., i : i + 512, :].double(), basis, out=product[..., i : i + 512, :])
    return product


def _leading_eigh(
    gram: Float[Tensor, "batch n n"], width: int
) -> tuple[Tensor, Tensor, Callable[[], tuple[Tensor, Tensor]]]:
    """Of the largest eigenvalues ``width`` + 1, ascending; the eigenvectors of ``width``; and what

    gives eigenvalues and eigenvectors of all others.
    """

    def split() -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        values, vectors = _eigh(gram)
        rest = gram.shape[-1] - width
        return values[:, rest - 1 :], vectors[..., rest:], (values[:, :rest], vectors[..., :rest])

    def others() -> tuple[Tensor, Tensor]:
        try:
            return tuple(part[None] for part in found.others(width))
        except ArithmeticError as error:
            logger.warning("eigenvectors of %s by torch: %s", tuple(gram.shape), error)
            return split()[2]

    if len(gram) == 1 and gram.dtype == torch.float32 and gram.device.type == "cpu":
        try:
            found = LeadingEigenvectors(gram[0], width + 1)
            return found.values[None], found.leading(width)[None], others
        except ArithmeticError as error:
            logger.warning("eigenvectors of %s by torch: %s", tuple(gram.shape), error)
    values, leading, rest = split()
    return values, leading, lambda: rest


def _eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors. What float32 cannot do is done in float64."""
    try:
        return torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError as error:
        logger.warning("eigenvectors of %s by SVD in float64: %s", tuple(gram.shape), error)
        lower = gram.double().tril()
        u, s, _ = _svd(lower + lower.tril(-1).mT)  # its eigenvalues are not negative
        return s.flip(-1).to(gram.dtype), u.flip(-1).to(gram.dtype)


def _svd(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    try:
        return torch.linalg.svd(matrices, full_matrices=False)
    except torch.linalg.LinAlgError as error:
        if matrices.dtype == torch.float64:
            raise
        logger.warning("SVD of %s again in float64: %s", tuple(matrices.shape), error)
        u, s, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
        return u.to(matrices.dtype), s.to(matrices.dtype), vh.to(matrices.dtype)


def check_svd_route(via: str) -> None:
    """ValueError unless ``via`` names a way to compute singular triplets."""
    if via not in SVD_ROUTES:
        raise ValueError(f"svd={via!r} is not a route to singular triplets: {SVD_ROUTES}.")
