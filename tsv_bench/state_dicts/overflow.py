"""Values cast to the dtype that a file holds; what does not fit it is refused."""

import math

import torch
from torch import Tensor


def fitted(name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast values to the dtype that they are written in.

    Raises ValueError if one of them is beyond that dtype, or not finite.
    """
    if not dtype.is_floating_point or not values.numel():
        return values.to(dtype)
    # Asked of the values and not of the cast ones: float8 has casts that cut off without infinity.
    wide = values if values.dtype.itemsize > 1 else values.float()  # float8 has no extremes
    low, high = wide.aminmax()
    if max(-low.item(), high.item()) < _rounded_to_infinity(dtype):
        return values.to(dtype)
    largest = wide.abs().nan_to_num(torch.inf, torch.inf).max().item()
    kind = str(dtype).removeprefix("torch.")
    advice = (
        "Lower alpha: with it the model is beyond float32, in which it is computed."
        if math.isinf(largest)
        else "Lower alpha, or write a wider type: dtype=, or precision= where files are compressed."
    )
    raise ValueError(
        f"{name!r} does not fit {kind}: its largest value is "
        f"{largest:.3g}, and {torch.finfo(dtype).max:.3g} is the largest that this type has. "
        f"{advice}"
    )


def _rounded_to_infinity(dtype: torch.dtype) -> float:
    """Return the least value that is not rounded to a finite one: half a place beyond the last."""
    limits = torch.finfo(dtype)
    return limits.max + math.ldexp(limits.eps, math.frexp(limits.max)[1] - 2)
