"""Floating-point types: what is widened, and what counts as zero."""

import torch
from jaxtyping import Float
from torch import Tensor


def _eps(a: Tensor) -> float:
    """The relative rounding error of one operation."""
    return torch.finfo(a.dtype).eps / 2


def singular_zero(dtype: torch.dtype) -> float:
    """Singular values up to this multiple of the largest are rounding errors of zero.

    Ten units: rounding leaves about one, and the worst concatenation measured on fine-tuned CLIPs
    (condition number 2e4, so a smallest value of 400 units in float32) must stay above.
    """
    return 10 * torch.finfo(dtype).eps


def at_least_float32(a: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Half precision is widened, as nothing decomposes it; float64 stays."""
    return a if a.dtype == torch.float64 else a.float()  # float8 has no rule of promotion
