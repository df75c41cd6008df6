"""Overlap of the tasks' singular vectors in one matrix: https://arxiv.org/abs/2412.00081.

A factor is the singular vectors that the tasks keep, side by side: [side, tasks * kept]. Its
columns have norm one, or zero where the singular value is zero; ``real`` is false for these. All
sums are in float64.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gram(factor: Float[Tensor, "side columns"]) -> Float[Tensor, "columns columns"]:
    """Return the cosine of every column with every other."""
    wide = factor.double()
    return wide.mT @ wide


def off_identity(
    gram: Float[Tensor, "columns columns"], real: Bool[Tensor, " columns"]
) -> Float[Tensor, "columns columns"]:
    """Return U^T U - I, which is zero if the columns are orthonormal."""
    return gram - torch.diag(real.to(gram.dtype))


def interference(
    left: Float[Tensor, "columns columns"],
    s: Float[Tensor, " columns"],
    right: Float[Tensor, "columns columns"],
) -> Float[Tensor, ""]:
    """Return singular task interference: || (U^T U - I) diag(s) (V^T V - I) ||_1, entrywise.

    ``left`` and ``right`` are U^T U - I and V^T V - I.
    """
    return (left * s.double() @ right).abs().sum()


def interference_of_pairs(
    left: Float[Tensor, "columns columns"],
    s: Float[Tensor, " columns"],
    right: Float[Tensor, "columns columns"],
    num_tasks: int,
) -> Float[Tensor, "tasks tasks"]:
    """Return what task j (column) alone puts into the directions of task i (row).

    This is || U_i^T U_j diag(s_j) V_j^T V_i ||_1. With two tasks, singular task interference is
    the sum of the two pairs.
    """
    split = (num_tasks, left.shape[0] // num_tasks)
    left, right = (x.unflatten(0, split).unflatten(2, split) for x in (left, right))
    weighed = left.movedim(2, 1) * s.double().unflatten(0, split)[:, None]
    pairs = (weighed @ right.permute(2, 0, 1, 3)).abs().sum(dim=(2, 3))
    return pairs.fill_diagonal_(0)  # a task's own vectors are orthonormal but for rounding


def subspace_cosines(
    gram: Float[Tensor, "columns columns"], real: Bool[Tensor, " columns"], num_tasks: int
) -> Float[Tensor, "tasks tasks"]:
    """Return the mean squared cosine of the principal angles between the tasks' subspaces.

    This is || U_i^T U_j ||_F^2 / dimension of the smaller subspace: 1 if it lies in the other, 0
    if they are orthogonal, about kept / side for random ones, nan if a task has no direction.
    """
    split = (num_tasks, gram.shape[0] // num_tasks)
    squares = gram.square().unflatten(0, split).unflatten(2, split).sum(dim=(1, 3))
    dims = real.unflatten(0, split).sum(dim=1).double()
    return squares / torch.minimum(dims[:, None], dims)


def orthogonality_error(
    factor: Float[Tensor, "side columns"],
    gram: Float[Tensor, "columns columns"],
    real: Bool[Tensor, " columns"],
) -> Float[Tensor, ""]:
    """Return max |U^T U - I| of a tall factor, max |U U^T - I| of a wide one."""
    side = factor.shape[0]
    if int(real.sum()) <= side:
        return off_identity(gram, real).abs().amax()
    wide = factor.double()
    return (wide @ wide.mT - torch.eye(side, dtype=torch.float64, device=wide.device)).abs().amax()
