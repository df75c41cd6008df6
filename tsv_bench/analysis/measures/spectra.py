"""Singular values of a delta and what they say of its rank."""

import torch
from jaxtyping import Float
from torch import Tensor

NUM_SHARES = 64


def energy_shares() -> list[float]:
    """The shares of the full rank at which cumulative energy is told; closer together near zero."""
    return [(i / NUM_SHARES) ** 2 for i in range(1, NUM_SHARES + 1)]


def singular_values(matrices: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch r"]:
    """All singular values, descending, in float64.

    Of float32 matrices by the Gram matrix of the smaller side in float64: quicker than an SVD in
    float32, and closer (within 1e-8 of the largest, at a value of zero).
    """
    if matrices.dtype == torch.float64:
        return torch.linalg.svdvals(matrices)
    wide = matrices.double()
    if wide.shape[-1] > wide.shape[-2]:
        wide = wide.mT
    return torch.linalg.eigvalsh(wide.mT @ wide).clamp(min=0).sqrt().flip(-1)


def cumulative_energy(s: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch r"]:
    """The share of the squared Frobenius norm in the leading 1, 2, ... triplets; NaN of zero."""
    sums = s.square().cumsum(dim=-1)
    return sums / sums[..., -1:]


def energy_at_shares(s: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch shares"]:
    """Cumulative energy at the `energy_shares` of the full rank, linear between whole ranks."""
    energy = torch.nn.functional.pad(cumulative_energy(s), (1, 0))  # of none
    ranks = torch.tensor(energy_shares(), dtype=s.dtype, device=s.device) * s.shape[-1]
    below = ranks.long().clamp(max=s.shape[-1] - 1)
    return torch.lerp(energy[..., below], energy[..., below + 1], ranks - below)


def effective_rank(s: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch"]:
    """exp of the entropy of s / sum(s): Roy & Vetterli, EUSIPCO 2007; NaN of zero.

    The full rank for equal singular values, 1 for a matrix of rank one.
    """
    p = s / s.sum(dim=-1, keepdim=True)
    return torch.special.entr(p).sum(dim=-1).exp()


def stable_rank(s: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch"]:
    """The squared Frobenius norm over the squared spectral norm; NaN of zero."""
    return (s / s[..., :1]).square().sum(dim=-1)
