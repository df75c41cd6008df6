"""Find values between two bounds, or of some ranks, among many and quickly."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

SAMPLE = 2**16  # values, of which bounds for a rank are taken
PIECE = 2**18
MARGIN = 0.01  # by how much, as a share of all values, a sample's ranks may be wrong


def ranked(values: Int[Tensor, " n"], places: Sequence[int]) -> list[int]:
    """Return the values at these places, 0 the first, of the sorted values; none negative."""
    if values.device.type != "cpu":
        return values.sort().values[list(places)].tolist()
    if len(values) < 4 * SAMPLE:
        return _partitioned(values, places)
    sample = values[:: len(values) // SAMPLE | 1].contiguous()  # odd: rows have even lengths
    return [_ranked(values, sample, place) for place in places]


def _ranked(values: Int[Tensor, " n"], sample: Int[Tensor, " m"], place: int) -> int:
    share, last = place / len(values), len(sample) - 1
    ends = [round((share - MARGIN) * last), round((share + MARGIN) * last)]
    low, high = _partitioned(sample, [min(max(end, 0), last) for end in ends])
    # Of half-precision weights many differences are equal: then these are not even selected.
    apart = [low] if low == high else []
    found = [within(piece, low, high, apart) for piece in values.split(PIECE)]  # for the cache
    num_below, inside = sum(below for below, *_ in found), torch.cat([rest for *_, rest in found])
    if apart and 0 <= place - num_below < sum(counts[0] for _, counts, _ in found):
        return low
    if 0 <= place - num_below < len(inside):
        return low + _partitioned(inside, [place - num_below])[0]
    return _partitioned(values, [place])[0]  # the sample misled, or had no place so far out


def _partitioned(values: Int[Tensor, " n"], places: Sequence[int]) -> list[int]:
    places = list(places)
    return np.partition(values.numpy(), places)[places].tolist()


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
