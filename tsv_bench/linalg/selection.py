"""Find the values between two bounds among many, quickly."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


def within(values: Int[Tensor, " n"], low: int, high: int) -> tuple[int, Int[Tensor, " found"]]:
    """Return how many values are below ``low``, and those from low to ``high``, less low.

    Neither values nor bounds may be negative.
    """
    if values.device.type != "cpu":
        inside = values[(values >= low) & (values <= high)]
        return int((values < low).sum()), inside - low
    own = values.numpy()  # NumPy compares and selects five times quicker than torch
    offsets = own - own.dtype.type(low)
    unsigned = offsets.view(f"u{own.itemsize}")  # so what is below low is beyond high
    return int(np.count_nonzero(offsets < 0)), torch.from_numpy(offsets[unsigned <= high - low])
