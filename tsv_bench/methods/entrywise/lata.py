"""LATA (layer-aware task arithmetic), adapted to CLIP: https://arxiv.org/abs/2502.20186.

`lata_published` has the published form, which needs the model before instruction tuning.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial

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
DIGITS = 9  # decimals of a cosine that count; the rest is rounding, which must not rank layers


def lata(
    task_vectors: TaskVectors, *, drop: str = "linear", threshold: float | int = 0.95
) -> ServedVectors:
    """Serve every task the sum of the task vectors, with a weight for each layer of each task.

    A layer weighs little if it is similar to the same layer of the mean task vector. (The paper
    compares with an instruction vector, which CLIP does not have.) ``drop`` says how the weight
    follows from the similarity: "linear" or "logarithmic" in the layer's rank, or "threshold": 1
    below that cosine, else 0. Raises ValueError for another drop, a threshold outside [-1, 1].
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
    """Return for each task the cosine of each layer with the mean; zero layers are left out."""
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
    """Return delta . mean, delta . delta and mean . mean of each task, in float64."""
    deltas = deltas.reshape(len(deltas), -1).double()  # the cosines of layers differ little
    mean = deltas.mean(dim=0)
    of_mean = (mean @ mean).expand(len(deltas))
    return torch.stack([deltas @ mean, deltas.square().sum(dim=1), of_mean]).cpu()


def layer_weights(
    cosines: Sequence[Mapping[str, float]],
    drop: str,
    threshold: float | int,
    rank_weights: str = "from_zero",
) -> list[dict[str, float]]:
    """Return for each task the weight of each layer. The most similar one has rank 1.

    Equally similar layers share their mean rank, so that neither names nor order decide.
    """

    def of(cosines: Mapping[str, float]) -> dict[str, float]:
        if drop == "threshold":
            return {name: float(cosine < threshold) for name, cosine in cosines.items()}
        weight = partial(rank_weight, num_layers=len(cosines), drop=drop, form=rank_weights)
        return {name: weight(rank) for name, rank in ranks(cosines).items()}

    return [of(of_task) for of_task in cosines]


def warn_of_even_weights(
    weights: Sequence[Mapping[str, float]], drop: str, threshold: float | int
) -> None:
    """Warn if all changed layers weigh the same, as LATA then is Task Arithmetic or nothing.

    This happens for a single task, which is its own mean, and for multiples of one task vector.
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
    """Return each layer's rank, 1 for the most similar; equal ones share their mean rank."""
    ordered = sorted(cosines.values(), reverse=True)
    first: dict[float, int] = {}
    count: dict[float, int] = {}
    for rank, cosine in enumerate(ordered, start=1):
        first.setdefault(cosine, rank)
        count[cosine] = count.get(cosine, 0) + 1
    return {name: first[cosine] + (count[cosine] - 1) / 2 for name, cosine in cosines.items()}


def rank_weight(rank: float, num_layers: int, drop: str, form: str) -> float:
    """Return a weight that grows with the rank, to 1 for the last layer; 1 for a single layer.

    ``form``: "from_zero", where rank 1 (the most similar) weighs 0, or "above_zero", where it keeps
    some of its weight.
    """
    if num_layers == 1:
        return 1.0
    if form == "above_zero":
        return rank / num_layers if drop == "linear" else math.log1p(rank) / math.log1p(num_layers)
    if drop == "linear":
        return (rank - 1) / (num_layers - 1)
    return math.log(rank) / math.log(num_layers)
