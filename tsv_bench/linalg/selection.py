"""Find the values between two bounds among many, quickly."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


def within(
    values: Int[Tensor, " n"], low: int, high: int, apart: Sequence[int] = ()
) -> tuple[int, list[int], Int[Tensor, " found"]]:
    """Return how many values are below ``low``, how many are each of those apart, and the rest.

    The rest: those from low to ``high`` but without those apart, less low. Neither values nor
    bounds may be negative; those apart are from low to high.
    """
    if values.device.type != "cpu":
        inside = (values >= low) & (values <= high)
        counts = []
        for value in apart:
            others = values != value
            counts.append(len(values) - int(others.sum()))
            inside &= others
        return int((values < low).sum()), counts, values[inside] - low
    own = values.numpy()  # NumPy compares and selects five times quicker than torch
    offsets = own - own.dtype.type(low)
    inside = offsets.view(f"u{own.itemsize}") <= high - low  # unsigned: what is below is beyond
    counts = []
    for value in apart:
        others = offsets != value - low
        counts.append(own.size - int(np.count_nonzero(others)))
        inside &= others
    num_below = int(np.count_nonzero(offsets < 0))
    return num_below, counts, torch.from_numpy(offsets[inside])
