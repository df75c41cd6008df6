"""FR-Merging, the static part of FREE-Merging: https://arxiv.org/abs/2411.16815."""

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
    centre: str,
    radius: float | int,
    weights: str,
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """The weighted sum of task matrices without their low frequencies; one vector for all tasks.

    ``centre`` and ``radius`` as in `kept_frequencies`. ``weights``: "aligned" brings each layer's
    mean magnitude to that of the task with the largest, "share" is a task's share of the mean
    magnitudes of whole task vectors, "one" leaves the sum as it is. Matrices as `Matrices` has
    them, the others averaged. ``exclude`` null: embeddings, output heads and text_projection.
    """
    check_choice("centre", centre, CENTRES, "where frequencies are measured from")
    meaning = "a distance between frequencies, as a share of the matrix's smaller side"
    check_not_negative("radius", radius, meaning)
    check_choice("weights", weights, WEIGHTS, "a way to weight tasks")
    matrices = Matrices.of(exclude, split_qkv)
    vectors = lazy_vectors(task_vectors.values())
    # A pass of its own: these are shares of whole task vectors.
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
    for delta, share in zip(deltas, shares, strict=True):  # a second copy of all is too much
        filtered = passed(delta, kept)
        if align:
            magnitude = float(filtered.abs().mean())
            if not magnitude:  # a task that has nothing left there stays at nothing
                continue
            filtered.div_(magnitude)
            largest = max(largest, magnitude)
        merged.add_(filtered, alpha=share)
    return merged.mul_(largest)


def passed(matrix: Float[Tensor, "m n"], kept: Bool[Tensor, "m half"]) -> Float[Tensor, "m n"]:
    """The matrix of these frequencies alone: one half of them, the other is its mirror image."""
    return torch.fft.irfft2(torch.fft.rfft2(matrix).mul_(kept), s=matrix.shape)


def kept_frequencies(
    m: int, n: int, centre: str, radius: float | int
) -> Bool[Tensor, "m {n//2+1}"]:
    """Which frequencies pass an ideal high-pass filter; ``radius`` times min(m, n) steps away.

    From "zero" on those at least so far from frequency zero (the paper's); from the "highest"
    those at most so far from the highest frequency (what the authors' code does).
    """
    rows = torch.fft.fftfreq(m, 1 / m, dtype=torch.float64)[:, None]
    cols = torch.fft.rfftfreq(n, 1 / n, dtype=torch.float64)
    if centre == "zero":
        return torch.hypot(rows, cols) >= radius * min(m, n)
    return torch.hypot(m / 2 - rows.abs(), n / 2 - cols) <= radius * min(m, n)


def magnitude_shares(vectors: Sequence[LazyMapping]) -> list[float]:
    """Each task's share of the mean magnitudes of all task vectors, all layers together."""
    names = vectors[0].names if vectors else ()
    parts = [part for name in names for part in blocks(vectors, name, magnitude_sums)]
    found = torch.zeros(len(vectors), dtype=torch.float64)
    for _, _, of_part in watched(stream_parts(parts), len(parts), "magnitudes"):
        found += of_part
    return torch.where(found.sum() > 0, found / found.sum(), 0.0).tolist()


def magnitude_sums(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, " tasks"]:
    return deltas.reshape(len(deltas), -1).abs().sum(dim=1, dtype=torch.float64).cpu()
