"""LATA (layer-aware task arithmetic) as published, with an instruction vector.

https://arxiv.org/abs/2502.20186. `lata` has the adaptation to CLIP, which has no such vector.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.entrywise.lata import DROPS, layer_weights
from tsv_bench.methods.knobs import check_choice, check_range
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    as_lazy,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.places import place_of
from tsv_bench.task_vectors.streaming import stream_parts, watched

__all__ = ["lata_published"]

log = logging.getLogger(__name__)

GRANULARITIES = ("block", "tensor")
RANK_WEIGHTS = ("from_zero", "above_zero")
# Decimals of a similarity that count. The similarity of a task that changes a thousandth of what
# instruction tuning did is 1 - 5e-7; sums in float64 are exact to 1e-14 or so.
DIGITS = 12


@dataclass(frozen=True)
class Weighting:
    """How the blocks were weighted. Both mappings: task -> block (or tensor) -> number."""

    similarities: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, Mapping[str, float]]


class WeightedVector(LazyVector):
    """A sum of task vectors with a weight for each block of each task; it says how they weigh."""

    def __init__(
        self, like: Sequence[LazyMapping], units: Mapping[str, str], weighting: Weighting
    ) -> None:
        """``units``: layer -> what it is weighted with; other layers weigh 1."""
        super().__init__(like, self._weighted)
        self.weighting, self._units = weighting, units

    def _weighted(self, name: str) -> list[Part]:
        unit = self._units.get(name)
        of_layer = [weights.get(unit, 1.0) for weights in self.weighting.weights.values()]

        def weighted(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
            return torch.tensordot(deltas.new_tensor(of_layer), deltas, dims=1)

        return blocks(self._like, name, weighted)


def lata_published(
    task_vectors: TaskVectors,
    *,
    instruction: Mapping,
    drop: str,
    threshold: float | int,
    granularity: str = "block",
    rank_weights: str = "from_zero",
) -> ServedVectors:
    """Serve every task the sum of the task vectors, with a weight for each block of each task.

    ``instruction`` is the instruct model minus the base model that it was made from; task vectors
    are fine-tuned minus instruct weights. A block's similarity is the cosine of the complex vector,
    fine-tuned minus base, with the instruction vector; the more similar, the less it weighs.
    ``drop`` says how: "linear" or "logarithmic" in the rank of the similarity, or "threshold": 1
    below that cosine, else 0. ``rank_weights`` says whether the most similar block weighs nothing
    ("from_zero") or a little ("above_zero"). ``granularity`` "tensor" weights each parameter of a
    block by itself. Parameters outside of blocks weigh 1.

    Raises ValueError for knobs out of range, and for an instruction vector of other layers.
    """
    check_choice("drop", drop, DROPS, "a way to weight blocks")
    check_range("threshold", threshold, -1, 1, "the cosine from which on a block is dropped")
    check_choice("granularity", granularity, GRANULARITIES, "what has a weight of its own")
    check_choice("rank_weights", rank_weights, RANK_WEIGHTS, "a form of weights by rank")
    vectors = lazy_vectors(task_vectors.values())
    if not vectors:
        return {}
    units = weighted_units(vectors[0].names, granularity)
    instruction = as_lazy(instruction)
    check_instruction(instruction, vectors[0], units)
    # A pass of its own: a weight depends on all blocks.
    cosines = similarities(vectors, instruction, units)
    weights = layer_weights(cosines, drop, threshold, rank_weights)
    say_what_is_not_weighted(vectors[0].names, units)
    warn_of_even_weights(weights, drop, threshold)
    weighting = Weighting(
        dict(zip(task_vectors, cosines, strict=True)), dict(zip(task_vectors, weights, strict=True))
    )
    return dict.fromkeys(task_vectors, WeightedVector(vectors, units, weighting))


def weighted_units(names: Collection[str], granularity: str) -> dict[str, str]:
    """Return for each layer that lies in a block what it is weighted with: its block, or itself.

    Blocks are in the order of their depth; files list the tenth before the second.
    """
    places = {name: place_of(name) for name in names}
    inside = [name for name, place in places.items() if place.depth is not None]
    stacks = list(dict.fromkeys(places[name].stack for name in inside))
    inside.sort(key=lambda name: (stacks.index(places[name].stack), places[name].depth))
    return {name: places[name].block if granularity == "block" else name for name in inside}


def check_instruction(instruction: LazyMapping, like: LazyMapping, names: Collection[str]) -> None:
    """Raise ValueError for a layer of a block that is missing or has another shape."""
    for name in names:
        if name not in instruction:
            raise ValueError(
                f"the instruction vector has no {name!r}, which the task vectors have. Are base "
                f"and instruct model of one architecture?"
            )
        if instruction.shape(name) != like.shape(name):
            raise ValueError(
                f"{name!r} is {tuple(instruction.shape(name))} in the instruction vector and "
                f"{tuple(like.shape(name))} in the task vectors. Are base and instruct model of "
                f"one architecture?"
            )


def similarities(
    vectors: Sequence[LazyMapping], instruction: LazyMapping, units: Mapping[str, str]
) -> list[dict[str, float]]:
    """Return for each task the cosine of its complex vector with the instruction vector, by unit.

    Where one of the two is zero there is no cosine, and the similarity is 0: nothing of the
    instruction is left in the unit, or never was. If both are, fine-tuning changed nothing there
    and the unit is left out.
    """
    together = [instruction, *vectors]
    parts = [part for name in units for part in blocks(together, name, inner_products)]
    sums: dict[str, Tensor] = {}
    for name, _, found in watched(stream_parts(parts), len(parts), "similarities"):
        unit = units[name]
        sums[unit] = sums[unit] + found if unit in sums else found
    cosines: list[dict[str, float]] = [{} for _ in vectors]
    for unit, (products, of_complex, of_instruction) in sums.items():
        lengths = of_complex.sqrt() * of_instruction.sqrt()
        unchanged = (of_complex == 0) & (of_instruction == 0)
        for task, (product, length) in enumerate(zip(products, lengths, strict=True)):
            if not unchanged[task]:
                cosine = float(product / length) if length > 0 else 0.0
                cosines[task][unit] = round(min(max(cosine, -1.0), 1.0), DIGITS)
    return cosines


def inner_products(deltas: Float[Tensor, "vectors ..."]) -> Float[Tensor, "3 tasks"]:
    """Return complex . instruction, complex . complex and instruction . instruction, in float64.

    The first delta is the instruction vector's, the others are the tasks'.
    """
    instruction, *tasks = deltas.reshape(len(deltas), -1).double()
    both = [instruction + task for task in tasks]
    of_instruction = instruction @ instruction
    return torch.stack(
        [torch.stack([c @ instruction, c @ c, of_instruction]) for c in both], dim=1
    ).cpu()


def say_what_is_not_weighted(names: Collection[str], units: Mapping[str, str]) -> None:
    """Log which parameters lie outside of blocks; a warning if all do."""
    outside = [name for name in names if name not in units]
    listed = ", ".join(outside[:3]) + (", ..." if len(outside) > 3 else "")
    if not units:
        log.warning(
            f"no parameter's name has a numbered block in it, as model.layers.0.mlp.weight has, so "
            f"all weigh 1 ({listed}): this is Task Arithmetic."
        )
    elif outside:
        log.info(f"{len(outside)} parameters outside of blocks weigh 1: {listed}")


def warn_of_even_weights(
    weights: Sequence[Mapping[str, float]], drop: str, threshold: float | int
) -> None:
    """Warn if all blocks weigh the same, as similarities then tell nothing apart."""
    found = {weight for of_task in weights for weight in of_task.values()}
    if found == {0.0}:
        log.warning(
            f"drop={drop} drops every block: none has a similarity below threshold={threshold}. "
            f"Only what lies outside of blocks changes; choose a larger one."
        )
    elif len(found) == 1:
        log.warning(
            f"every block weighs {found.pop():.2g}: "
            + (
                f"none has a similarity of threshold={threshold} or more."
                if drop == "threshold"
                else "all are equally like the instruction vector."
            )
            + " In blocks this is Task Arithmetic."
        )
