"""Singular values of a delta, its energy and its rank."""

import torch
from jaxtyping import Float
from torch import Tensor

NUM_SHARES = 64


def energy_shares() -> list[float]:
    """Return the shares of the full rank at which cumulative energy is recorded, in (0, 1].

    They are closer together near zero, where energy grows fastest.
    """
    return [(i / NUM_SHARES) ** 2 for i in range(1, NUM_SHARES + 1)]


def singular_values(matrices: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch r"]:
    """Return all singular values, descending, in float64.

    Those of float32 matrices come from the Gram matrix of the smaller side in float64. This is
    quicker than an SVD in float32 and more accurate: the error, largest at a singular value of
    zero, is within 1e-8 of the largest one.
    """
    if matrices.dtype == torch.float64:
        return torch.linalg.svdvals(matrices)
    wide = matrices.double()
    if wide.shape[-1] > wide.shape[-2]:
        wide = wide.mT
    return torch.linalg.eigvalsh(wide.mT @ wide).clamp(min=0).sqrt().flip(-1)


def cumulative_energy(s: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch r"]:
    """Return the share of the squared Frobenius norm in the leading 1, 2, ... triplets.

    It is nan for a matrix of zeros.
    """
    sums = s.square().cumsum(dim=-1)
    return sums / sums[..., -1:]


def energy_at_shares(s: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch shares"]:
    """Return cumulative energy at the `energy_shares` of the full rank, linear between ranks."""
    energy = torch.nn.functional.pad(cumulative_energy(s), (1, 0))  # rank 0 has none
    ranks = torch.tensor(energy_shares(), dtype=s.dtype, device=s.device) * s.shape[-1]
    below = ranks.long().clamp(max=s.shape[-1] - 1)
    return torch.lerp(energy[..., below], energy[..., below + 1], ranks - below)


def effective_rank(s: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch"]:
    """Return exp(entropy of s / sum(s)): Roy & Vetterli, EUSIPCO 2007.

    It is the full rank for equal singular values, 1 for a matrix of rank one, nan for zeros.
    """
    p = s / s.sum(dim=-1, keepdim=True)
    return torch.special.entr(p).sum(dim=-1).exp()


def stable_rank(s: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch"]:
    """Return squared Frobenius norm / squared spectral norm; nan for a matrix of zeros."""
    return (s / s[..., :1]).square().sum(dim=-1)
