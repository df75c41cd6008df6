"""LATA (layer-aware task arithmetic), adapted to CLIP: https://arxiv.org/abs/2502.20186."""

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.knobs import check_choice, check_range
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.streaming import stream_parts, watched

__all__ = ["lata"]

log = logging.getLogger(__name__)

DROPS = ("linear", "logarithmic", "threshold")
DIGITS = 9  # decimals of a cosine that count; further ones are rounding, and would rank layers


def lata(task_vectors: TaskVectors, *, drop: str, threshold: float | int) -> ServedVectors:
    """The sum of the task vectors, every layer of each weighted; one vector for all tasks.

    A task's layers that are like the mean task vector weigh little (the paper's instruction
    vector, which CLIP has not, in its place). ``drop`` says how weights follow similarity:
    "linear" or "logarithmic" in a layer's rank, or "threshold": 1 below that cosine, else 0.
    """
    check_choice("drop", drop, DROPS, "a way to weight layers")
    check_range("threshold", threshold, -1, 1, "the cosine from which on a layer is dropped")
    vectors = lazy_vectors(task_vectors.values())
    # A pass of its own: a weight depends on all layers.
    weights = layer_weights(similarities(vectors), drop, threshold)
    warn_of_even_weights(weights, drop, threshold)

    def parts(name: str) -> list[Part]:
        of_layer = [of_task.get(name, 0.0) for of_task in weights]

        def weighted(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
            return torch.tensordot(deltas.new_tensor(of_layer), deltas, dims=1)

        return blocks(vectors, name, weighted)

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def similarities(vectors: Sequence[LazyMapping]) -> list[dict[str, float]]:
    """Of each task and layer the cosine with the mean of the tasks; none where either is zero."""
    names = vectors[0].names if vectors else ()
    parts = [part for name in names for part in blocks(vectors, name, inner_products)]
    sums: dict[str, Tensor] = {}
    for name, _, found in watched(stream_parts(parts), len(parts), "similarities"):
        sums[name] = sums[name] + found if name in sums else found
    cosines: list[dict[str, float]] = [{} for _ in vectors]
    for name, (with_mean, squares, of_mean) in sums.items():
        lengths = (squares * of_mean).sqrt()
        for task, (product, length) in enumerate(zip(with_mean, lengths, strict=True)):
            if length > 0:
                cosines[task][name] = round(float(product / length), DIGITS)
    return cosines


def inner_products(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "3 tasks"]:
    """Of each task the products with the mean and with itself; and of the mean with itself."""
    deltas = deltas.reshape(len(deltas), -1).double()  # a layer's are near each other
    mean = deltas.mean(dim=0)
    of_mean = (mean @ mean).expand(len(deltas))
    return torch.stack([deltas @ mean, deltas.square().sum(dim=1), of_mean]).cpu()


def layer_weights(
    cosines: Sequence[Mapping[str, float]], drop: str, threshold: float | int
) -> list[dict[str, float]]:
    """Of each task and layer the weight. Rank 1 is the most similar layer of a task and weighs 0.

    Layers of one similarity share their mean rank, so that neither names nor order decide.
    """
    return [
        {name: float(cosine < threshold) for name, cosine in of_task.items()}
        if drop == "threshold"
        else {name: rank_weight(rank, len(of_task), drop) for name, rank in ranks(of_task).items()}
        for of_task in cosines
    ]


def warn_of_even_weights(
    weights: Sequence[Mapping[str, float]], drop: str, threshold: float | int
) -> None:
    """A warning where all layers that tasks changed weigh the same: LATA has told none apart.

    So for a task alone, which is its own mean, and for tasks that are multiples of each other.
    """
    found = {weight for of_task in weights for weight in of_task.values()}
    if found == {0.0}:
        log.warning(
            f"drop={drop} drops every layer: none has a cosine with the mean task vector below "
            f"threshold={threshold}. The pretrained model is served; choose a larger one."
            if drop == "threshold"
            else f"drop={drop} gives every layer the weight 0: the pretrained model is served."
        )
    elif len(found) == 1 and len(next(iter(weights))) > 1:
        log.warning(
            f"every layer has the same weight, {found.pop():.2g}: all are equally like the mean "
            f"task vector, as a single task's are. This is Task Arithmetic at another scale."
        )


def ranks(cosines: Mapping[str, float]) -> dict[str, float]:
    """1 for the most similar layer; the mean rank where several are alike."""
    ordered = sorted(cosines.values(), reverse=True)
    first: dict[float, int] = {}
    count: dict[float, int] = {}
    for rank, cosine in enumerate(ordered, start=1):
        first.setdefault(cosine, rank)
        count[cosine] = count.get(cosine, 0) + 1
    return {name: first[cosine] + (count[cosine] - 1) / 2 for name, cosine in cosines.items()}


def rank_weight(rank: float, num_layers: int, drop: str) -> float:
    """From 0, the most similar of the layers, to 1; a layer alone has none to yield to."""
    if num_layers == 1:
        return 1.0
    if drop == "linear":
        return (rank - 1) / (num_layers - 1)
    return math.log(rank) / math.log(num_layers)
