"""Singular triplets of a product of two factors are those of the product."""

import pytest
import torch

from tsv_bench.linalg.factored import left_basis, triplets_of_product

near = {"rtol": 0, "atol": 1e-10}  # of values up to ten, in float64


@pytest.mark.parametrize(("m", "n", "r"), [(9, 7, 3), (5, 8, 1), (3, 4, 6)])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_triplets_are_those_of_the_product(m, n, r, rank):
    left, right = (torch.randn(2, *size, dtype=torch.float64) for size in ((m, r), (r, n)))
    u, s, vh = triplets_of_product(left, right, rank)
    assert u.shape == (2, m, rank) and s.shape == (2, rank) and vh.shape == (2, rank, n)
    own_u, own_s, own_vh = torch.linalg.svd(left @ right, full_matrices=False)
    kept = min(rank, r, m, n)
    torch.testing.assert_close(s[:, :kept], own_s[:, :kept], **near)
    assert not s[:, kept:].any() and not u[..., kept:].any() and not vh[:, kept:].any()
    expected = own_u[..., :kept] * own_s[:, None, :kept] @ own_vh[:, :kept]
    torch.testing.assert_close(u * s[:, None] @ vh, expected, **near)
    own = vh[:, :kept] @ vh[:, :kept].mT
    torch.testing.assert_close(own, torch.eye(kept).double().expand(2, -1, -1), **near)


@pytest.mark.parametrize(("m", "n"), [(9, 4), (4, 9)])
def test_a_basis_is_orthonormal_and_puts_what_is_large_first(m, n):
    matrix = torch.randn(m, n, dtype=torch.float64)
    matrix[:, 1] = matrix[:, 0]  # the basis goes on where the matrix spans nothing
    u = left_basis(matrix)
    torch.testing.assert_close(u.mT @ u, torch.eye(4, dtype=torch.float64), **near)
    along = u.mT @ matrix @ matrix.mT @ u
    torch.testing.assert_close(along, along.diagonal().sort(descending=True).values.diag(), **near)
