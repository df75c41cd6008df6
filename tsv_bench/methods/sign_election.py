"""TIES-Merging: https://arxiv.org/abs/2306.01708."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.streaming import blocks, watched
from tsv_bench.task_vectors import TaskVectors, dtype_of, mean, merge_entries

MERGES = ("mean", "sum")
DIGIT = 16  # bits that one pass settles


def ties(
    task_vectors: TaskVectors, *, density: float | int, merge: str = "mean"
) -> Mapping[str, Mapping[str, Tensor]]:
    """Trim every task vector, elect a sign for every entry, merge what agrees; one for all tasks.

    ``density`` is the share of a task vector's entries that trimming keeps, in (0, 1]; ``merge``
    says how agreeing entries become one: their "mean" (the paper's) or "sum".
    """
    if not isinstance(density, int | float) or not 0 < density <= 1:
        raise ValueError(
            f"density={density!r} is not in (0, 1]: it is the share of entries that trimming keeps."
        )
    if merge not in MERGES:
        raise ValueError(f"merge={merge!r} is not a way to merge what agrees: {MERGES}.")
    # Passes of their own: one threshold for a whole task vector, which is never in memory.
    thresholds = trim_thresholds(list(task_vectors.values()), density)
    rule = partial(merge_agreeing, thresholds=thresholds, merge=merge)
    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), rule))


def trim_thresholds(vectors: Sequence[Mapping[str, Tensor]], density: float | int) -> list[float]:
    """`trim_threshold` of every vector, side by side, one thread for each."""
    threads = torch.get_num_threads()

    def threshold(vector: Mapping[str, Tensor]) -> float:
        torch.set_num_threads(1)
        return trim_threshold(vector, density)

    with ThreadPoolExecutor(threads) as pool:
        try:
            found = pool.map(threshold, vectors)
            return list(watched(found, len(vectors), "thresholds"))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def trim_threshold(vector: Mapping[str, Tensor], density: float | int) -> float:
    """The smallest magnitude kept, if ceil(density * entries) are; all that equal it are kept.

    Exact, over all layers together, entries that fine-tuning left alone included. The bits of
    magnitudes, read as whole numbers, are in the same order. So a histogram of their leading bits
    tells which of these the threshold has, and another pass over the vector the bits that follow.
    """
    parts = [part for name in vector for part in blocks([vector], name, mean)]
    num_entries = sum(part.num_entries for part in parts)
    # Rounded, because 0.07 * 100 is 7.000000000000001.
    below = num_entries - max(1, math.ceil(round(num_entries * density, 6)))
    wide = any(dtype_of(vector, name) == torch.float64 for name in vector)
    bits, whole, real = (
        (64, torch.int64, torch.float64) if wide else (32, torch.int32, torch.float32)
    )
    threshold = 0
    for shift in range(bits - DIGIT, -1, -DIGIT):
        counts = torch.zeros(2**DIGIT, dtype=torch.int64)
        for part in parts:
            magnitudes = part.read().to(real).abs_().flatten().view(whole)
            # Other leading bits than the threshold's go into the bin before or after.
            digits = (magnitudes - (threshold << (shift + DIGIT))) >> shift
            digits = digits.clamp_(-1, 2**DIGIT).add_(1)
            counts += torch.bincount(digits, minlength=2**DIGIT + 2)[1:-1].cpu()
        upto = counts.cumsum(0)
        digit = int(torch.searchsorted(upto, below, right=True))
        below -= int(upto[digit - 1]) if digit else 0
        threshold = threshold << DIGIT | digit
    return float(torch.tensor(threshold, dtype=whole).view(real))


def merge_agreeing(
    deltas: Float[Tensor, "tasks ..."], thresholds: list[float], merge: str
) -> Float[Tensor, "..."]:
    """Merge one layer: entries below their task's threshold, or against the elected sign, drop out.

    The elected sign is that of the sum of what trimming kept; entries that cancel exactly elect
    none and become zero.
    """
    column = deltas.new_tensor(thresholds).reshape(-1, *[1] * (deltas.ndim - 1))
    kept = deltas.masked_fill(deltas.abs() < column, 0)
    sign = kept.sum(dim=0).sign_()
    agreeing = kept.mul_(sign).clamp_(min=0)  # magnitudes, in place: this is bound by memory
    merged = agreeing.sum(dim=0).mul_(sign)
    return merged if merge == "sum" else merged.div_(agreeing.sign_().sum(dim=0).clamp_(min=1))
