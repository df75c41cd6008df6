"""Representation Surgery: https://arxiv.org/abs/2402.02705."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.bench import Bench, check_bench, check_fits
from tsv_bench.methods.by_name import method_by_name
from tsv_bench.methods.knobs import check_not_negative, check_positive, check_whole
from tsv_bench.methods.learned.adapters import AdaptedVector, Adapter
from tsv_bench.methods.learned.learning import (
    Batches,
    generator,
    minimize,
)
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.merge import times
from tsv_bench.task_vectors.streaming import watched
from tsv_bench.task_vectors.task_vector import apply

__all__ = ["surgery"]

AT_ONCE = 64  # images whose features are computed together


def surgery(
    task_vectors: TaskVectors,
    *,
    bench: Bench | None,
    base: str = "task_arithmetic",
    base_knobs: Mapping | None = None,
    base_alpha: float | int = 0.3,
    rank: int = 16,
    learning_rate: float | int = 1e-3,
    steps: int = 1000,
    batch_size: int = 16,
) -> ServedVectors:
    """Serve every task what ``base`` merges, times ``base_alpha``, and an adapter of its features.

    The adapter takes up relu(down z) from features z. Adam brings them nearer to those of the
    task's own model on the bench's images, by the mean of absolute differences. ``base`` is a
    method that serves one vector, with its knobs in ``base_knobs``; it gets the bench if it learns.
    Adapters are learned when the first is wanted. Raises ValueError for knobs out of range, another
    kind of base, or without a bench.
    """
    merge = method_by_name("base", base, "base_knobs", base_knobs, bench=bench)
    check_not_negative("base_alpha", base_alpha, "what the merged vector is multiplied by")
    check_whole("rank", rank, "the rank of an adapter", 1)
    check_positive("learning_rate", learning_rate, "how far Adam moves a weight in one step")
    check_whole("steps", steps, "the number of Adam's steps for each task", 0)
    check_whole("batch_size", batch_size, "the number of images in a step", 1)
    if not task_vectors:
        return {}
    check_bench("surgery", bench)
    merged, *others = merge(task_vectors).values()
    if any(other is not merged for other in others):
        raise ValueError(
            f"base={base} serves each task its own vector; surgery adapts the features of one that "
            f"is for all."
        )
    learner = Surgery(
        bench, task_vectors,
        rank=rank, learning_rate=learning_rate, steps=steps, batch_size=batch_size,
    )  # fmt: skip
    shared = times(merged, float(base_alpha))
    return {task: AdaptedVector(shared, learner.adapters) for task in task_vectors}


class Surgery:
    """Learn an adapter for each task; the tasks' adapters do not know of each other.

    No image passes twice through a network: what is learned is a function of two sets of features.
    """

    def __init__(self, bench: Bench, task_vectors: TaskVectors, *, rank: int, **how: Any) -> None:
        """``how``: the arguments of `fit` beside the features."""
        self._bench, self._task_vectors, self._rank, self._how = bench, task_vectors, rank, how
        self._learned: dict[str, Adapter] | None = None

    def adapters(self, shared: Mapping[str, Tensor]) -> dict[str, Adapter]:
        """Return task -> its adapter, learned once; ``shared`` are the layers of the vector.

        One model at a time is in memory beside the merged one.
        """
        if self._learned is None:
            bench, found = self._bench, {}
            check_fits(bench, self._task_vectors)
            merged = apply(bench.pretrained, shared, 1.0)
            tasks = self._task_vectors
            for task in watched(tasks, len(tasks), "surgery: tasks"):
                own = apply(bench.pretrained, tasks[task], 1.0)
                z, wanted = (_features(bench, weights, task) for weights in (merged, own))
                found[task] = self.fit(task, z, wanted, **self._how)
            self._learned = found
        return self._learned

    def fit(
        self,
        task: str,
        z: Float[Tensor, "images dim"],
        wanted: Float[Tensor, "images dim"],
        *,
        learning_rate: float | int,
        steps: int,
        batch_size: int,
    ) -> Adapter:
        """Return the adapter after the last step, from one that changes nothing."""
        adapter = self.start(task, z)
        parameters = list(adapter.tensors.values())
        batches = Batches(self._bench, task, batch_size)

        @torch.enable_grad()
        def gradient() -> Tensor:
            rows = batches.rows().to(z.device)
            loss = (adapter(z[rows]) - wanted[rows]).abs().mean()
            loss.backward()
            return loss

        minimize(
            parameters, gradient, steps=steps, learning_rate=learning_rate, what=f"surgery, {task}"
        )
        return Adapter(adapter.down.detach(), adapter.up.detach())

    def start(self, task: str, z: Float[Tensor, "images dim"]) -> Adapter:
        """Return an adapter whose up is zero, and whose down is drawn as torch draws a linear map.

        That is Kaiming's uniform distribution, with slope sqrt(5): up to 1 / sqrt(dim).
        """
        dim = z.shape[1]
        drawn = torch.rand(
            self._rank, dim, dtype=torch.float64, generator=generator(self._bench, task, "down")
        )
        down = ((2 * drawn - 1) / dim**0.5).to(z)
        up = torch.zeros_like(down.mT)
        return Adapter(down.requires_grad_(True), up.requires_grad_(True))


@torch.no_grad()
def _features(
    bench: Bench, weights: Mapping[str, Tensor], task: str
) -> Float[Tensor, "images dim"]:
    batches = bench.images(task).split(AT_ONCE)
    return torch.cat([bench.features(weights, images) for images in batches])
