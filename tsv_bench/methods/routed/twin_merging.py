"""Twin-Merging: https://arxiv.org/abs/2406.15479."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tsv_bench.linalg.svd import truncated_svd
from tsv_bench.methods.bench import Bench, check_bench
from tsv_bench.methods.by_name import method_by_name
from tsv_bench.methods.knobs import check_not_negative, check_switch
from tsv_bench.methods.ranks import check_rank_fraction, kept_rank
from tsv_bench.methods.routed.experts import Experts, is_linear
from tsv_bench.methods.routed.feature_router import FeatureRouter, RouterRecipe
from tsv_bench.methods.routed.routed_vector import Routing, part_of_both
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
from tsv_bench.task_vectors.streaming import stream_parts, watched

__all__ = ["twin_merging"]

ENTRY_BYTES = 4  # of a factor's entry, in float32


def twin_merging(
    task_vectors: TaskVectors,
    *,
    bench: Bench | None,
    base: str = "task_arithmetic",
    base_knobs: Mapping | None = None,
    base_alpha: float | int = 0.3,
    rank_fraction: float | int = 0.1,
    mixture: bool = True,
    router_reads: str = "shared",
    router_hidden: Sequence[int] = (512, 256),
    router_epochs: int = 50,
    router_learning_rate: float | int = 1e-3,
    router_weight_decay: float | int = 0,
    router_batch_size: int = 256,
    router_held_out: float | int = 0.2,
) -> ServedVectors:
    """Serve each image what ``base`` merges, and a mixture of experts that a router weights.

    A task's expert is its difference from the merged model in the matrices of residual blocks, of
    which ``rank_fraction`` of the singular triplets are kept. With ``mixture`` experts count as the
    router's softmax says, else the likeliest one alone. ``base`` serves one vector, with its knobs
    in ``base_knobs``, and is multiplied by ``base_alpha``. The router's knobs are those of
    `RouterRecipe`. Raises ValueError for knobs out of range, another kind of base, or without a
    bench when the router is wanted.
    """
    merge = method_by_name("base", base, "base_knobs", base_knobs, bench=bench)
    check_not_negative("base_alpha", base_alpha, "what the merged vector is multiplied by")
    check_rank_fraction(rank_fraction)
    check_switch("mixture", mixture)
    recipe = RouterRecipe(
        reads=router_reads, hidden=router_hidden, epochs=router_epochs,
        learning_rate=router_learning_rate, weight_decay=router_weight_decay,
        batch_size=router_batch_size, held_out=router_held_out,
    )  # fmt: skip
    recipe.check()
    if not task_vectors:
        return {}
    tasks = list(task_vectors)
    vectors = dict(zip(tasks, lazy_vectors(task_vectors.values()), strict=True))
    merged, *others = merge(task_vectors).values()
    if any(other is not merged for other in others):
        raise ValueError(
            f"base={base} serves each task its own vector; experts stand beside one for all."
        )

    def own(shared: Mapping, task: str) -> LazyVector:
        pair = [as_lazy(shared), vectors[task]]
        return LazyVector(pair, lambda name: [part(pair, name, rank_fraction, added)])

    def learn(shared: Mapping) -> FeatureRouter:
        check_bench("twin_merging", bench)
        learned = recipe.learn(bench, shared, tasks)
        experts = Experts(factors=low_rank(shared, vectors, rank_fraction)).to(bench.device)
        return FeatureRouter(tasks, recipe.reads, learned.layers, experts, mixture)

    def expert_bytes() -> int:
        found = next(iter(vectors.values()))
        shapes = [found.shape(name) for name in found if is_expert(found, name)]
        entries = sum((m + n) * kept_rank(min(m, n), len(tasks), rank_fraction) for m, n in shapes)
        return ENTRY_BYTES * entries * len(tasks)

    return Routing(times(merged, float(base_alpha)), own, learn, expert_bytes).vectors(tasks)


def is_expert(vector: LazyMapping, name: str) -> bool:
    """Return whether experts have a part in a layer: a matrix of a residual block."""
    return is_linear(name) and len(vector.shape(name)) == 2


def low_rank(
    shared: Mapping, vectors: Mapping[str, LazyMapping], rank_fraction: float | int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return layer -> the factors (up [tasks, m, r], down [tasks, r, n]) of all tasks' experts."""
    shared = as_lazy(shared)
    names = [name for name in shared if is_expert(shared, name)]
    parts = [
        part([shared, vector], name, rank_fraction, lambda _, up, down: (up, down))
        for name in names
        for vector in vectors.values()
    ]
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
    for name, _, factors in watched(stream_parts(parts), len(parts), "experts"):
        found[name].append(factors)
    return {
        name: tuple(torch.stack(of_tasks) for of_tasks in zip(*pairs, strict=True))
        for name, pairs in found.items()
    }


def added(shared: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Return a layer of the vector that serves one expert alone."""
    return shared + up @ down


def part(
    pair: Sequence[LazyMapping],
    name: str,
    rank_fraction: float | int,
    of_factors: Callable[[Tensor, Tensor, Tensor], Any],
) -> Part:
    """Return the part that computes ``of_factors(shared, up, down)`` of a task's layer.

    A layer without experts is the shared one.
    """
    shape = pair[1].shape(name)

    def compute(deltas: Tensor) -> Any:
        shared, delta = deltas
        if not is_expert(pair[1], name):
            return shared
        rank = kept_rank(min(shape), 1, rank_fraction)
        u, s, vh = truncated_svd(delta - shared, rank)
        return of_factors(shared, u * s, vh)

    return part_of_both(pair, name, compute)
