"""ESM++, essential subspace merging with low-rank experts: https://arxiv.org/abs/2606.19164."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.by_name import bound
from tsv_bench.methods.knobs import check_not_negative, check_whole
from tsv_bench.methods.observed.esm import esm
from tsv_bench.methods.observed.essential_directions import essential_directions
from tsv_bench.methods.observed.observations import Observed
from tsv_bench.methods.routed.experts import Experts, Gates, is_linear
from tsv_bench.methods.routed.routed_vector import Routing, one_hot, part_of_both
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    as_lazy,
    lazy_vectors,
)
from tsv_bench.task_vectors.merge import times
from tsv_bench.task_vectors.statistics import TaskStatistics, as_statistics
from tsv_bench.task_vectors.streaming import stream_parts, watched

__all__ = ["esm_plus_plus"]

LAYERS = ("in_proj_weight", "c_fc.weight")
ENTRY_BYTES = 4


def esm_plus_plus(
    task_vectors: TaskVectors,
    *,
    inputs: TaskStatistics,
    means: TaskStatistics,
    base_alpha: float | int = 1.0,
    base_knobs: Mapping | None = None,
    rank: int = 32,
) -> ServedVectors:
    """Serve each image what ESM merges, and in some layers the expert whose inputs are most alike.

    The layers are the fused projections of attention and the first ones of MLPs. An expert is what
    a task's model differs from the merged one there, in the ``rank`` leading directions of its
    outputs on the task's inputs. In each layer an image gets the expert whose mean input has the
    largest cosine with the mean of the image's tokens. ``base_alpha`` multiplies what ESM merges,
    with its knobs in ``base_knobs``. Raises ValueError for knobs out of range, or if statistics of
    these layers are missing.
    """
    check_not_negative("base_alpha", base_alpha, "what the merged vector is multiplied by")
    check_whole("rank", rank, "the rank of an expert", 1)
    merged = bound(esm, "ESM", "base_knobs", base_knobs, inputs=inputs)(task_vectors)
    if not task_vectors:
        return {}
    tasks = list(task_vectors)
    vectors = dict(zip(tasks, lazy_vectors(task_vectors.values()), strict=True))

    def part(
        shared: Mapping, task: str, name: str, of_factors: Callable[[Tensor, Tensor, Tensor], Any]
    ) -> Part:
        pair = [as_lazy(shared), vectors[task]]

        def compute(deltas: Tensor) -> Any:
            if not is_expert(pair[1], name):
                return deltas[0]
            return of_factors(deltas[0], *directions(deltas, inputs[task], name, rank))

        return part_of_both(pair, name, compute)

    def own(shared: Mapping, task: str) -> LazyVector:
        pair = [as_lazy(shared), vectors[task]]
        return LazyVector(
            pair, lambda name: [part(shared, task, name, lambda s, up, down: s + up @ down)]
        )

    def learn(shared: Mapping) -> PrototypeRouter:
        names = [name for name in vectors[tasks[0]] if is_expert(vectors[tasks[0]], name)]
        parts = [
            part(shared, task, name, lambda _, up, down: (up, down))
            for name in names
            for task in tasks
        ]
        factors: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
        for name, _, found in watched(stream_parts(parts), len(parts), "experts"):
            factors[name].append(found)
        like = {name: factors[name][0][0] for name in names}
        return PrototypeRouter(
            tasks,
            Experts(
                {
                    name: tuple(torch.stack(of_tasks) for of_tasks in zip(*pairs, strict=True))
                    for name, pairs in factors.items()
                }
            ),
            {name: torch.stack([means[t][name] for t in tasks]).to(like[name]) for name in names},
        )

    def expert_bytes() -> int:
        found = vectors[tasks[0]]
        shapes = [found.shape(name) for name in found if is_expert(found, name)]
        entries = sum((m + n) * min(rank, m, n) for m, n in shapes)
        return ENTRY_BYTES * entries * len(tasks)

    base = times(next(iter(merged.values())), float(base_alpha))
    return Routing(base, own, learn, expert_bytes).vectors(tasks)


def is_expert(vector: LazyMapping, name: str) -> bool:
    """Return whether experts have a part in a layer."""
    return is_linear(name, LAYERS) and len(vector.shape(name)) == 2


def directions(
    deltas: Float[Tensor, "2 m n"], inputs: Mapping, name: str, rank: int
) -> tuple[Float[Tensor, "m r"], Float[Tensor, "r n"]]:
    """Return the leading directions of the outputs of a task's difference, and it in them.

    ``deltas``: the shared one and the task's. Zero fills up where there are fewer directions.
    """
    shared, delta = deltas
    difference = delta - shared
    (m, n), rank = delta.shape, min(rank, *delta.shape)
    statistics = as_statistics(inputs)
    gram = at_least_float32(statistics[name]).to(difference.device)
    observed = Observed(difference, gram, statistics.gathered(name).count)
    found = essential_directions(observed, rank, as_released=False)
    up, down = difference.new_zeros(m, rank), difference.new_zeros(rank, n)
    if found is not None:
        count = found.outputs.shape[1]
        up[:, :count], down[:count] = found.outputs.to(up), found.inputs.to(down)
    return up, down


class PrototypeRouter:
    """In each layer, the task whose mean input is most like the mean of an image's tokens."""

    reads = None

    def __init__(
        self, tasks: Sequence[str], experts: Experts, means: Mapping[str, Float[Tensor, "tasks n"]]
    ) -> None:
        self.tasks, self.experts, self._means = tasks, experts, means

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self._means

    def gates(self, features: None = None) -> Gates:
        """Return gates that count one expert of each layer for each image."""

        def run(name: str, x: Float[Tensor, "images tokens n"]) -> Float[Tensor, "images tasks"]:
            means = F.normalize(self._means[name], dim=-1)
            cosines = F.normalize(x.mean(dim=1), dim=-1).to(means) @ means.mT
            return one_hot(cosines.argmax(dim=1), len(self.tasks))

        return run
