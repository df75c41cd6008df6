"""Matrices that are known as a product of two thin factors: none is ever multiplied out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from tsv_bench.linalg.svd import eigh


def triplets_of_product(
    left: Float[Tensor, "*batch m r"], right: Float[Tensor, "*batch r n"], rank: int
) -> tuple[
    Float[Tensor, "*batch m rank"], Float[Tensor, "*batch rank"], Float[Tensor, "*batch rank n"]
]:
    """Return the ``rank`` leading singular triplets of left @ right; zeros where there are fewer.

    They are computed in float64 and returned in the factors' type.
    """
    qu, ru = torch.linalg.qr(left.double())
    qv, rv = torch.linalg.qr(right.double().mT)
    a, s, bh = torch.linalg.svd(ru @ rv.mT, full_matrices=False)
    u, v = qu @ a, qv @ bh.mT
    lacking = max(rank - s.shape[-1], 0)
    u, s, v = (pad(part, (0, lacking))[..., :rank].to(left.dtype) for part in (u, s, v))
    return u, s, v.mT


def basis_of_products(
    lefts: Sequence[Float[Tensor, "m _"]],
    rights: Sequence[Float[Tensor, "_ n"]],
    smallest: float,
    dtype: torch.dtype,
) -> Float[Tensor, "m k"]:
    """Return the left singular vectors of the products left @ right side by side.

    Those of values up to ``smallest`` of the largest are left out. Computed in float64.
    """
    q, r = torch.linalg.qr(torch.cat(tuple(lefts), dim=1).double())
    gram = r.new_zeros(len(r), len(r))
    for own, right in zip(r.split([len(right) for right in rights], dim=1), rights, strict=True):
        within = own @ right.double()
        gram += within @ within.mT
    values, vectors = eigh(gram)
    return (q @ vectors[:, values > smallest**2 * values[-1]]).to(dtype)


def left_basis(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m k"]:
    """Return the left singular vectors, min(m, n) of them, those of zero values included."""
    q, r = torch.linalg.qr(matrix)
    return q @ torch.linalg.svd(r, full_matrices=False).U
