"""Truncated singular value decompositions, for https://arxiv.org/abs/2412.00081."""

import logging
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.lapack import LETTERS, LeadingEigenvectors, lower_squares
from tsv_bench.linalg.precision import at_least_float32, unit_roundoff

logger = logging.getLogger(__name__)

SVD_ROUTES = ("gram", "svd")

# The error of a computed singular subspace is called its leak; `estimate_leak` bounds it. This much
# may be left. Where tasks share directions, their concatenation's condition number multiplies it in
# the merged layer.
LEAK = 4e-7
LARGE_LEAK = 2e-5  # the largest that is left where an SVD in float32 would leave more
NEGLIGIBLE = 0.5  # share of the error of an SVD in float32 up to which a leak is left
NEIGHBOURS = 8  # singular values on either side of the last wanted one that tell their spacing
LARGE_SQUARE = 1e30  # float32 overflows above 3e38, and has fewer digits below 1e-38
CORRECTABLE = 2e-3  # a larger leak does not shrink as perturbation theory predicts
CORRECTIONS = 2  # at most; a third would cost as much as float64 does
EXTRA = 32  # eigenvectors beyond the wanted ones: they catch most of what rounding displaces
CHUNK = 4096  # rows converted to float64 at a time; all of twenty full-rank tasks take gigabytes
SMALL = 256  # columns up to which an eigendecomposition in float64 costs next to nothing


def truncated_svd(
    matrices: Float[Tensor, "*batch m n"], rank: int, via: str = "gram"
) -> tuple[
    Float[Tensor, "*batch m rank"], Float[Tensor, "*batch rank"], Float[Tensor, "*batch rank n"]
]:
    """Return the ``rank`` leading singular triplets u, s, vh, in float32 at least.

    Equal to `torch.linalg.svd`, cut, but for rounding and signs. ``via`` "svd" is a full SVD.
    "gram" takes the eigenvectors of the smaller Gram matrix: several times faster and, with float64
    where it matters, closer to the exact triplets than an SVD in float32. Float64 matrices always
    get a full SVD, as there is no wider type. Raises ValueError for another ``via``.
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
    # A GPU is fastest with all at once; on a CPU one at a time keeps the float64 copies small.
    parts = batch.split(len(batch) if batch.is_cuda else 1)
    triplets = zip(*(_leading_triplets(part, rank) for part in parts), strict=True)
    u, s, vh = (torch.cat(parts) for parts in triplets)
    return u.reshape(*lead, *u.shape[1:]), s.reshape(*lead, rank), vh.reshape(*lead, *vh.shape[1:])


def _leading_triplets(
    a: Float[Tensor, "batch m n"], rank: int
) -> tuple[Float[Tensor, "batch m k"], Float[Tensor, "batch k"], Float[Tensor, "batch k n"]]:
    """Return the triplets of tall float32 matrices by one Rayleigh-Ritz step in float64.

    It is left out where the eigenvectors are in float64 already.
    """
    basis, exact = _subspace(a, rank)
    if exact:
        found = basis[..., -rank:].flip(-1)
        image = times_in_float64(a, found)
        s = torch.linalg.vector_norm(image, dim=-2)
        if (s.amin(-1) > 1e-4 * s.amax(-1)).all():
            return (image / s[:, None]).to(a.dtype), s.to(a.dtype), found.mT.to(a.dtype)
    else:
        basis = torch.linalg.qr(basis).Q
    image = times_in_float64(a, basis)
    squares, rotation = eigh(image.mT @ image)
    if (squares[:, -rank] > 1e-8 * squares[:, -1]).all():
        squares, rotation = squares[:, -rank:].flip(-1), rotation[..., -rank:].flip(-1)
        s = squares.sqrt()
        u, vh = image @ (rotation / s[:, None]), rotation.mT @ basis.mT
    else:  # the singular vectors of small values would not be orthonormal
        q, r = torch.linalg.qr(image)
        u, s, wh = _svd(r)
        u, s, vh = q @ u[..., :rank], s[..., :rank], wh[..., :rank, :] @ basis.mT
    return u.to(a.dtype), s.to(a.dtype), vh.to(a.dtype)


def _subspace(
    a: Float[Tensor, "batch m n"], rank: int
) -> tuple[Float[Tensor, "batch n width"], bool]:
    """Return the ``rank`` leading eigenvectors of a^T a and `EXTRA` more, as columns in float64.

    And whether all were computed in float64: they ascend then, as their eigenvalues do.
    They are computed in float32 if the leak can be left or corrected, else in float64. Each
    correction multiplies the leak by about itself.
    """
    n = a.shape[-1]
    width = min(rank + EXTRA, n)
    leak = torch.full((len(a),), torch.inf, device=a.device)
    gram = lower_gram(a) if n > SMALL and width < n // 2 else None
    if gram is not None and (gram.diagonal(dim1=1, dim2=2) < LARGE_SQUARE).all():
        values, leading, others = _leading_eigh(gram, width)
        leak = estimate_leak(values, rank, unit_roundoff(a))
    correctable = leak < CORRECTABLE
    basis = a.new_empty(len(a), n, width, dtype=torch.float64)
    if correctable.any():
        basis[correctable] = leading[correctable].double()
        for done in range(CORRECTIONS):
            if (leak[correctable] ** (1 + done) > LEAK).any():
                rest = (found[correctable] for found in others())
                basis[correctable] = _corrected(_chosen(a, correctable), *rest, basis[correctable])
    if not correctable.all():
        gram = lower_gram(_chosen(a, ~correctable).double())
        basis[~correctable] = eigh(gram)[1][..., -width:]
    return basis, not correctable.any()


def estimate_leak(
    values: Float[Tensor, "batch count"], rank: int, eps: float
) -> Float[Tensor, " batch"]:
    """Return by how much rounding displaces the subspace of the ``rank`` leading eigenvectors.

    ``values`` are the largest eigenvalues of a^T a, ascending, at least ``rank`` + `NEIGHBOURS`;
    the first belongs to an eigenvector that is left out of the computed ones. A first-order
    perturbation bound: eps * largest / (last wanted - first left out).

    Zero where that is small beside the error of an SVD of ``a`` in the same type, which is bounded
    by eps * last wanted singular value / distance of those near it. Infinity where the squares are
    too small for float32.
    """
    assert values.shape[1] >= rank + NEIGHBOURS
    leak = eps * values[:, -1] / (values[:, -rank] - values[:, 0])
    leak[values[:, -1] < 1 / LARGE_SQUARE] = torch.inf
    near = values[:, -rank - NEIGHBOURS :].clamp(min=0).sqrt()[:, : 2 * NEIGHBOURS + 1]
    last_wanted, next_one = near[:, NEIGHBOURS], near[:, NEIGHBOURS - 1]
    mean_distance = (near[:, -1] - near[:, 0]) / (near.shape[1] - 1)
    of_an_svd = eps * last_wanted / torch.maximum(last_wanted - next_one, mean_distance)
    leak[leak < (NEGLIGIBLE * of_an_svd).clamp(max=LARGE_LEAK)] = 0
    return leak


def _chosen(a: Tensor, which: Tensor) -> Tensor:
    return a if which.all() else a[which]  # no copy if all are chosen


def _corrected(
    a: Float[Tensor, "batch m n"],
    values: Float[Tensor, "batch rest"],
    others: Float[Tensor, "batch n rest"],
    basis: Float[Tensor, "batch n width"],
) -> Float[Tensor, "batch n width"]:
    """Return better leading eigenvectors of a^T a than ``basis``; ``others`` are those left out.

    First-order correction: add every discarded eigenvector, weighted by its component of the
    float64 residual over the eigenvalue difference.
    """
    basis = torch.linalg.qr(basis).Q
    image = times_in_float64(a, basis)
    ritz, rotation = eigh(image.mT @ image)
    basis, image = basis @ rotation, image @ rotation
    residual = (times_in_float64(a.mT, image) - basis * ritz[:, None]).to(a.dtype)
    # Eigenvalues on either side of the edge may differ by rounding only. Those eigenvectors are
    # not corrected well, but they are among the extra ones.
    ritz = ritz[:, None].to(a.dtype)
    differences = (ritz - values[..., None]).clamp(min=4 * unit_roundoff(a) * ritz[..., -1:])
    return basis + (others @ (others.mT @ residual / differences)).double()


def lower_gram(a: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch n n"]:
    """Return the lower triangle of a^T a: half the work, and all that `torch.linalg.eigh` reads."""
    (m, n), block = a.shape[-2:], 192
    if n > SMALL and 0 < a.numel() == m * n and a.device.type == "cpu" and a.dtype in LETTERS:
        return lower_squares(a.view(m, n)).view(*a.shape[:-2], n, n)
    gram = a.new_zeros(*a.shape[:-2], n, n)
    for i in range(0, n, block):
        rows = slice(i, min(i + block, n))
        torch.matmul(a[..., rows].mT, a[..., : rows.stop], out=gram[..., rows, : rows.stop])
    return gram


def symmetric(lower: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Return the symmetric matrix with this lower triangle; what is above it does not count."""
    return lower.tril() + lower.tril(-1).mT


def times_in_float64(
    a: Float[Tensor, "batch m n"], basis: Float[Tensor, "batch n k"]
) -> Float[Tensor, "batch m k"]:
    """Return a @ basis in float64, without a float64 copy of all of ``a``."""
    if a.shape[-1] > 1 and a.stride(-1) > a.stride(-2):
        # Where both lie by columns, some BLAS take four times as long; so their transposes do not.
        rows = basis.new_empty(*a.shape[:-2], basis.shape[-1], a.shape[-2])
        for i in range(0, a.shape[-2], 256):
            part = a.mT[..., i : i + 256].double()
            torch.matmul(basis.mT, part, out=rows[..., i : i + 256])
        return rows.mT
    product = basis.new_empty(*a.shape[:-1], basis.shape[-1])
    for i in range(0, a.shape[-2], 256):
        torch.matmul(a[..., i : i + 256, :].double(), basis, out=product[..., i : i + 256, :])
    return product


def _leading_eigh(
    gram: Float[Tensor, "batch n n"], width: int
) -> tuple[Tensor, Tensor, Callable[[], tuple[Tensor, Tensor]]]:
    """Return ``width`` + 1 largest eigenvalues, ``width`` eigenvectors, and how to get the rest.

    The eigenvalues [batch, width + 1] ascend; the eigenvectors [batch, n, width] are those of the
    ``width`` largest; a function computes the remaining eigenvalues and eigenvectors on demand.
    """

    def split() -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        values, vectors = eigh(gram)
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


def eigh(gram: Float[Tensor, "*batch n n"]) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, ascending, and eigenvectors, as `torch.linalg.eigh` does.

    An SVD in float64 takes over where that does not converge.
    """
    n = gram.shape[-1]
    try:
        if n > SMALL and gram.numel() == n * n and gram.device.type == "cpu":
            # SciPy's LAPACK: on some processors torch's takes half as long again.
            found = LeadingEigenvectors(gram.reshape(n, n), n)
            return found.values.view(gram.shape[:-1]), found.leading(n).view(gram.shape)
    except ArithmeticError as error:
        logger.warning("eigenvectors of %s by torch: %s", tuple(gram.shape), error)
    try:
        return torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError as error:
        logger.warning("eigenvectors of %s by SVD in float64: %s", tuple(gram.shape), error)
        u, s, _ = _svd(symmetric(gram.double()))  # its eigenvalues are not negative
        return s.flip(-1).to(gram.dtype), u.flip(-1).to(gram.dtype)


def leading_eigh(
    symmetric: Float[Tensor, "n n"], count: int
) -> tuple[Float[Tensor, " count"], Float[Tensor, "n count"]]:
    """Return the ``count`` largest eigenvalues, descending, and their eigenvectors.

    ``symmetric`` is float32 or float64; only its lower triangle is read.
    """
    if symmetric.device.type == "cpu":
        try:
            found = LeadingEigenvectors(symmetric, count)
            return found.values.flip(0), found.leading(count).flip(1)
        except ArithmeticError as error:
            logger.warning("eigenvectors of %s by torch: %s", tuple(symmetric.shape), error)
    values, vectors = eigh(symmetric)
    return values.flip(0)[:count], vectors.flip(1)[:, :count]


def lower_product(a: Float[Tensor, "m k"], b: Float[Tensor, "k m"]) -> Float[Tensor, "m m"]:
    """Return the lower triangle of a @ b, which is symmetric: half the work."""
    m, block = len(a), 192
    product = a.new_zeros(m, m)
    for i in range(0, m, block):
        rows = slice(i, min(i + block, m))
        torch.matmul(a[rows], b[:, : rows.stop], out=product[rows, : rows.stop])
    return product


def _svd(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return u, s, vh; in float64 where float32 does not converge."""
    try:
        return torch.linalg.svd(matrices, full_matrices=False)
    except torch.linalg.LinAlgError as error:
        if matrices.dtype == torch.float64:
            raise
        logger.warning("SVD of %s again in float64: %s", tuple(matrices.shape), error)
        u, s, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
        return u.to(matrices.dtype), s.to(matrices.dtype), vh.to(matrices.dtype)


def check_svd_route(via: str) -> None:
    """Raise ValueError unless ``via`` names a way to compute singular triplets."""
    if via not in SVD_ROUTES:
        raise ValueError(f"svd={via!r} is not a route to singular triplets: {SVD_ROUTES}.")
