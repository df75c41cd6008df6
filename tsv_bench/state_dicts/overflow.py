"""Values cast to the dtype that a file holds; what does not fit it is refused."""

import math

import torch
from torch import Tensor

from tsv_bench.linalg.precision import all_finite, at_least_float32


def fitted(name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast values to the dtype that they are written in.

    Raises ValueError if one of them is beyond that dtype, or not finite.
    """
    cast = values.to(dtype)
    if not dtype.is_floating_point or all_finite(cast) and not _saturated(values, dtype):
        return cast
    largest = at_least_float32(values).abs().nan_to_num(torch.inf, torch.inf).max().item()
    raise ValueError(
        f"{name!r} does not fit {str(dtype).removeprefix('torch.')}: its largest value is "
        f"{largest:.3g}, and {torch.finfo(dtype).max:.3g} is the largest that this type has. Lower "
        f"alpha, or write a wider type: that of the pretrained checkpoint, or precision= where "
        f"files are compressed."
    )


def _saturated(values: Tensor, dtype: torch.dtype) -> bool:
    """Return whether a cast to float8 cuts values off; torch has types that do not overflow."""
    if dtype.itemsize > 1 or values.dtype == dtype:
        return False
    limits = torch.finfo(dtype)
    last_place = math.ldexp(limits.eps, math.frexp(limits.max)[1] - 1)
    low, high = at_least_float32(values).aminmax()
    return max(-low.item(), high.item()) > limits.max + last_place / 2  # else it is only rounded
