"""Find values between two bounds, or of some ranks, among many and quickly."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

SAMPLE = 2**16  # values, of which bounds for a rank are taken
PIECE = 2**18
MOST_APART, OFTEN = 8, 1 / 256  # values that are only counted, and the share of a sample of each
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
    apart = sorted(frequent(sample, low, high))
    found = [within(piece, low, high, apart) for piece in values.split(PIECE)]  # for the cache
    rest = torch.cat([inside for *_, inside in found])
    left = place - sum(num_below for num_below, *_ in found)
    counts = [sum(of_piece) for of_piece in zip(*(own for _, own, _ in found), strict=True)]
    if not 0 <= left < len(rest) + sum(counts):
        return _partitioned(values, [place])[0]  # the sample misled, or had no place so far out
    for value, count in zip(apart, counts, strict=True):
        if left < (num_smaller := int(np.count_nonzero(rest.numpy() < value - low))):
            break
        if left < num_smaller + count:
            return value
        left -= count
    return low + _partitioned(rest, [left])[0]


def frequent(sample: Int[Tensor, " n"], low: int, high: int) -> list[int]:
    """Return the values from low to high that many entries have, of a sample of them.

    Differences of half-precision weights are few distinct numbers.
    """
    values, counts = sample[(sample >= low) & (sample <= high)].unique(return_counts=True)
    order = counts.argsort(descending=True)[:MOST_APART]
    return values[order][counts[order] >= OFTEN * len(sample)].tolist()


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
