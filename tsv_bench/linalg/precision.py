"""Floating-point types: which are widened, and which values count as zero."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def unit_roundoff(a: Tensor) -> float:
    """Return the largest relative error of one rounded operation in the tensor's type."""
    return torch.finfo(a.dtype).eps / 2


def singular_zero(dtype: torch.dtype) -> float:
    """Return the share of the largest singular value up to which one counts as zero.

    It is ten units in the last place. Rounding leaves about one. The worst concatenation measured
    on fine-tuned CLIPs must count as more: its condition number is 2e4, so its smallest singular
    value is 400 units in float32.
    """
    return 10 * torch.finfo(dtype).eps


FAR = 2.0**30  # beyond it, or below its inverse, squares leave float32's range in large sums


def at_unit_scale(
    rule: Callable[[Tensor], Tensor], deltas: Float[Tensor, "tasks m n"]
) -> Float[Tensor, "m n"]:
    """Return ``rule(deltas)``, computed where squares neither overflow nor vanish.

    ``rule`` must be homogeneous: c times the deltas gives c times the result. The scale is a power
    of two, so that nothing is rounded by it, and 1 where the deltas are not far from 1.
    """
    largest = max(map(abs, torch.stack(deltas.aminmax()).tolist()), default=0.0)
    if largest == 0 or 1 / FAR <= largest <= FAR:
        return rule(deltas)
    exponent = max(-126, min(126, math.frexp(largest)[1]))
    return rule(deltas * 2.0**-exponent).mul_(2.0**exponent)


def at_least_float32(a: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return ``a`` in float32, or as it is if it is float64: nothing decomposes half precision."""
    return a if a.dtype == torch.float64 else a.float()  # float8 has no rule of promotion


def all_finite(a: Tensor) -> bool:
    """Return whether no entry is NaN or infinite.

    The sum is tried first, as it needs no memory. It may overflow where no entry does.
    """
    total = a.sum(dtype=torch.float32 if a.dtype.itemsize < 8 else None)
    return bool(total.isfinite()) or bool(a.isfinite().all())
