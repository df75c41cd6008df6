"""FR-Merging, FREE-Merging without its experts: https://arxiv.org/abs/2411.16815."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.methods.knobs import check_choice, check_not_negative
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import merge_layers
from tsv_bench.task_vectors.streaming import stream_parts, watched

__all__ = ["fr_merging"]

CENTRES = ("highest", "zero")
WEIGHTS = ("aligned", "share", "one")


def fr_merging(
    task_vectors: TaskVectors,
    *,
    centre: str = "highest",
    radius: float | int = 0.7,
    weights: str = "aligned",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task the weighted sum of task matrices without their low frequencies.

    ``centre`` and ``radius`` are those of `kept_frequencies`. ``weights`` is one of

    - aligned: scale every task's filtered layer to the largest mean magnitude among the tasks
    - share: weight a task by its share of the mean magnitudes of whole task vectors
    - one: leave the sum as it is

    Layers that are no matrices are averaged; ``exclude`` and ``split_qkv`` as in `tsv_merge`.
    Raises ValueError for knobs out of range.
    """
    check_choice("centre", centre, CENTRES, "where frequencies are measured from")
    meaning = "a distance between frequencies, as a share of the matrix's smaller side"
    check_not_negative("radius", radius, meaning)
    check_choice("weights", weights, WEIGHTS, "a way to weight tasks")
    matrices = Matrices.of(exclude, split_qkv)
    vectors = lazy_vectors(task_vectors.values())
    # This takes a pass of its own: shares are those of whole task vectors.
    shares = magnitude_shares(vectors) if weights == "share" else [1.0] * len(vectors)
    rule = partial(
        merge_filtered, centre=centre, radius=radius, shares=shares, align=weights == "aligned"
    )
    return dict.fromkeys(task_vectors, merge_layers(vectors, rule, matrices=matrices))


def merge_filtered(
    deltas: Float[Tensor, "tasks m n"],
    centre: str,
    radius: float | int,
    shares: Sequence[float],
    align: bool,
) -> Float[Tensor, "m n"]:
    """Merge one layer's task matrices: filter each, weight it, add them up."""
    kept = kept_frequencies(*deltas.shape[1:], centre, radius).to(deltas.device)
    merged, largest = torch.zeros_like(deltas[0]), 0.0 if align else 1.0
    for delta, share in zip(deltas, shares, strict=True):  # saves a second copy of all
        filtered = passed(delta, kept)
        if align:
            magnitude = float(filtered.abs().mean())
            if not magnitude:  # nothing is left of the task
                continue
            filtered.div_(magnitude)
            largest = max(largest, magnitude)
        merged.add_(filtered, alpha=share)
    return merged.mul_(largest)


def passed(matrix: Float[Tensor, "m n"], kept: Bool[Tensor, "m half"]) -> Float[Tensor, "m n"]:
    """Return the matrix with only these frequencies; ``kept`` is the half that `rfft2` computes."""
    return torch.fft.irfft2(torch.fft.rfft2(matrix).mul_(kept), s=matrix.shape)


def kept_frequencies(
    m: int, n: int, centre: str, radius: float | int
) -> Bool[Tensor, "m {n//2+1}"]:
    """Return which frequencies pass an ideal high-pass filter of radius * min(m, n) steps.

    With centre "zero" those that far or further from frequency zero, as in the paper. With centre
    "highest" those that near or nearer to the highest frequency, as in the authors' code.
    """
    rows = torch.fft.fftfreq(m, 1 / m, dtype=torch.float64)[:, None]
    cols = torch.fft.rfftfreq(n, 1 / n, dtype=torch.float64)
    if centre == "zero":
        return torch.hypot(rows, cols) >= radius * min(m, n)
    return torch.hypot(m / 2 - rows.abs(), n / 2 - cols) <= radius * min(m, n)


def magnitude_shares(vectors: Sequence[LazyMapping]) -> list[float]:
    """Return each task's share of the sum of the task vectors' mean magnitudes over all layers."""
    names = vectors[0].names if vectors else ()
    parts = [part for name in names for part in blocks(vectors, name, magnitude_sums)]
    found = torch.zeros(len(vectors), dtype=torch.float64)
    for _, _, of_part in watched(stream_parts(parts), len(parts), "magnitudes"):
        found += of_part
    return torch.where(found.sum() > 0, found / found.sum(), 0.0).tolist()


def magnitude_sums(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, " tasks"]:
    """Return each task's sum of magnitudes, in float64."""
    return deltas.reshape(len(deltas), -1).abs().sum(dim=1, dtype=torch.float64).cpu()
