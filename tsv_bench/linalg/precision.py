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
    """Widen half precision, which nothing decomposes; float64 stays."""
    return a if a.dtype == torch.float64 else a.float()  # float8 has no rule of promotion


def all_finite(a: Tensor) -> bool:
    """Return whether no entry is NaN or infinite.

    The sum is tried first, as it needs no memory. It may overflow where no entry does.
    """
    total = a.sum(dtype=torch.float32 if a.dtype.itemsize < 8 else None)
    return bool(total.isfinite()) or bool(a.isfinite().all())
