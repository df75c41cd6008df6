"""Overlap of the tasks' singular vectors in one matrix: https://arxiv.org/abs/2412.00081.

A factor is what the tasks keep, side by side: [side, tasks * kept], unit columns. A column of
zeros stands for a singular vector that is none, of a singular value of zero. ``real`` says which
columns are vectors. All sums are in float64.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gram(factor: Float[Tensor, "side columns"]) -> Float[Tensor, "columns columns"]:
    """The cosine of every column with every other."""
    wide = factor.double()
    return wide.mT @ wide


def off_identity(
    gram: Float[Tensor, "columns columns"], real: Bool[Tensor, " columns"]
) -> Float[Tensor, "columns columns"]:
    """How far the columns are from orthonormal: U^T U - I."""
    return gram - torch.diag(real.to(gram.dtype))


def interference(
    left: Float[Tensor, "columns columns"],
    s: Float[Tensor, " columns"],
    right: Float[Tensor, "columns columns"],
) -> Float[Tensor, ""]:
    """Singular task interference: || (U^T U - I) diag(s) (V^T V - I) ||_1, entrywise.

    ``left`` and ``right`` are the differences from the identity.
    """
    return (left * s.double() @ right).abs().sum()


def interference_of_pairs(
    left: Float[Tensor, "columns columns"],
    s: Float[Tensor, " columns"],
    right: Float[Tensor, "columns columns"],
    num_tasks: int,
) -> Float[Tensor, "tasks tasks"]:
    """What task j (column) alone puts into the directions of task i (row).

    || U_i^T U_j diag(s_j) V_j^T V_i ||_1: of two tasks the singular task interference is the sum.
    """
    split = (num_tasks, left.shape[0] // num_tasks)
    left, right = (x.unflatten(0, split).unflatten(2, split) for x in (left, right))
    weighed = left.movedim(2, 1) * s.double().unflatten(0, split)[:, None]
    pairs = (weighed @ right.permute(2, 0, 1, 3)).abs().sum(dim=(2, 3))
    return pairs.fill_diagonal_(0)  # a task's own vectors are orthonormal but for rounding


def subspace_cosines(
    gram: Float[Tensor, "columns columns"], real: Bool[Tensor, " columns"], num_tasks: int
) -> Float[Tensor, "tasks tasks"]:
    """The mean squared cosine of the principal angles between the tasks' subspaces.

    || U_i^T U_j ||_F^2 over the dimension of the smaller one: 1 where it lies in the other, 0 where
    they are orthogonal, about kept / side for random ones. NaN for a task without any direction.
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
    """max |U^T U - I| of a tall factor, max |U U^T - I| of a wide one."""
    side = factor.shape[0]
    if int(real.sum()) <= side:
        return off_identity(gram, real).abs().amax()
    wide = factor.double()
    return (wide @ wide.mT - torch.eye(side, dtype=torch.float64, device=wide.device)).abs().amax()
