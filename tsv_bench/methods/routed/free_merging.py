"""FREE-Merging: https://arxiv.org/abs/2411.16815."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.bench import Bench, check_bench
from tsv_bench.methods.knobs import check_choice, check_positive, check_share
from tsv_bench.methods.matrixwise.fr_merging import fr_merging, magnitude_shares
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
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import times
from tsv_bench.task_vectors.order_statistics import trim_threshold
from tsv_bench.task_vectors.streaming import stream_parts, watched
from tsv_bench.task_vectors.task_vector import is_changed

__all__ = ["free_merging"]

TOP = ("row", "tensor", "whole")
RESCALE = ("code", "paper", "fixed")
COMBINE = ("replace", "add")
ENTRY_BYTES = 8  # of an expert's entry: a float32 and where it stands


def free_merging(
    task_vectors: TaskVectors,
    *,
    bench: Bench | None,
    centre: str = "highest",
    radius: float | int = 0.7,
    weights: str = "one",
    backbone_scale: float | int = 0.25,
    density: float | int = 0.01,
    top: str = "row",
    rescale: str = "code",
    factor: float | int = 7,
    combine: str = "replace",
    expert_scale: float | int = 0.5,
    exclude: Sequence[str] | None = None,
    router_reads: str = "zero_shot",
    router_hidden: Sequence[int] = (512, 256),
    router_epochs: int = 50,
    router_learning_rate: float | int = 1e-3,
    router_weight_decay: float | int = 0,
    router_batch_size: int = 256,
    router_held_out: float | int = 0.2,
) -> ServedVectors:
    """Serve each image what FR-Merging gives, and the expert of the task that a router finds.

    ``centre``, ``radius``, ``weights`` and ``exclude`` are those of `fr_merging`, whose vector is
    multiplied by ``backbone_scale``. An expert keeps the share ``density`` of its task vector, the
    largest entries of each row, tensor or the whole. Its matrices are rescaled (`Rescaling`), all
    of it is multiplied by ``expert_scale``, and it replaces the entries of the backbone or is
    added. The router's knobs are those of `RouterRecipe`. Raises ValueError for knobs out of range,
    or without a bench when the router is wanted.
    """
    shared = fr_merging(
        task_vectors, centre=centre, radius=radius, weights=weights, exclude=exclude
    )
    check_positive("backbone_scale", backbone_scale, "what the shared vector is multiplied by")
    check_share("density", density, "the share of a task vector that its expert keeps")
    check_choice("top", top, TOP, "where the largest entries are taken")
    check_choice("rescale", rescale, RESCALE, "a way to rescale an expert")
    check_positive("factor", factor, "what matrices of an expert are multiplied by if fixed")
    check_choice("combine", combine, COMBINE, "what an expert does to the shared entries")
    check_positive("expert_scale", expert_scale, "what an expert is multiplied by")
    recipe = RouterRecipe(
        reads=router_reads, hidden=router_hidden, epochs=router_epochs,
        learning_rate=router_learning_rate, weight_decay=router_weight_decay,
        batch_size=router_batch_size, held_out=router_held_out,
    )  # fmt: skip
    recipe.check()
    if not task_vectors:
        return {}
    tasks = list(task_vectors)
    matrices = Matrices.of(exclude, split_qkv=False)
    vectors = dict(zip(tasks, lazy_vectors(task_vectors.values()), strict=True))
    rescaling = Rescaling(list(vectors.values()), matrices, rescale, density, factor)
    experts = {task: Expert(vector, density, top) for task, vector in vectors.items()}

    def own(shared: Mapping, task: str) -> LazyVector:
        pair, expert = [as_lazy(shared), vectors[task]], experts[task]

        def parts(name: str) -> list[Part]:
            shape = pair[1].shape(name)
            # Here, since both may take a pass over all layers.
            expert.settle()
            is_matrix = matrices.is_matrix(name, shape)
            scale = float(expert_scale) * (rescaling.of(expert) if is_matrix else 1.0)

            def compute(deltas: Float[Tensor, "2 ..."]) -> Float[Tensor, "..."]:
                backbone, delta = deltas
                kept = expert.kept(delta)
                if combine == "replace":
                    return torch.where(kept, delta * scale, backbone)
                return backbone + torch.where(kept, delta * scale, 0.0)

            # Whole layers: their largest entries are not those of some rows.
            return [part_of_both(pair, name, compute)]

        return LazyVector(pair, parts)

    def learn(shared: Mapping) -> FeatureRouter:
        check_bench("free_merging", bench)
        return FeatureRouter(tasks, recipe.reads, recipe.learn(bench, shared, tasks).layers)

    def expert_bytes() -> int:
        return ENTRY_BYTES * sum(
            expert.count(name)
            for expert in experts.values()
            for name in expert.vector
            if is_changed(expert.vector, name)
        )

    shared = times(next(iter(shared.values())), float(backbone_scale))
    return Routing(shared, own, learn, expert_bytes).vectors(tasks)


class Expert:
    """Which entries of a task vector its expert keeps: the largest ones that are not zero."""

    def __init__(self, vector: LazyMapping, density: float | int, top: str) -> None:
        self.vector, self._density, self._top = vector, density, top
        self._threshold: float | None = None

    def settle(self) -> None:
        """Find what depends on all layers, so that `kept` can tell of each layer alone."""
        if self._top == "whole" and self._threshold is None:
            self._threshold = trim_threshold(self.vector, self._density)

    def kept(self, delta: Float[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return which entries of a layer are kept; of each row or tensor one at least."""
        sizes = delta.abs()
        if self._top == "whole":
            return (sizes >= self._threshold) & (sizes > 0)
        rows = sizes.reshape(1, -1) if self._top == "tensor" or delta.ndim < 2 else sizes
        places = rows.topk(self._num_kept(rows.shape[-1]), dim=-1).indices
        found = torch.zeros_like(rows, dtype=torch.bool).scatter_(-1, places, True)
        return found.reshape(delta.shape) & (sizes > 0)

    def _num_kept(self, length: int) -> int:
        return max(1, int(self._density * length))  # rounded down, as in the authors' code

    def count(self, name: str) -> int:
        """Return how many entries of a layer are stored; with "whole", its share of all."""
        shape = self.vector.shape(name)
        if self._top == "whole":
            return round(self._density * shape.numel())
        if self._top == "tensor" or len(shape) < 2:
            return self._num_kept(shape.numel())
        return shape.numel() // shape[-1] * self._num_kept(shape[-1])


class Rescaling:
    """What a task's expert is multiplied by where it is a matrix, so that little stands for all.

    With d the density: "code" is -log10(d) k / e, where e is the mean magnitude of a matrix of the
    task vector and k that of the entries kept, both averaged over matrices. "paper" is
    -log(d) K / (w E), where E and K are the mean magnitudes of all entries of the task vector and
    of its expert, zeros counted, and w is the task's share of the sum of all tasks' E. "fixed" is
    a given factor.
    """

    def __init__(
        self,
        vectors: Sequence[LazyMapping],
        matrices: Matrices,
        kind: str,
        density: float | int,
        factor: float | int,
    ) -> None:
        self._vectors, self._matrices, self._kind = vectors, matrices, kind
        self._density, self._factor = density, factor
        self._found: dict[int, float] = {}

    @cached_property
    def _shares(self) -> list[float]:
        return magnitude_shares(self._vectors)

    def of(self, expert: Expert) -> float:
        """Return an expert's factor; 1 if its task changed nothing."""
        if self._kind == "fixed":
            return float(self._factor)
        number = [vector is expert.vector for vector in self._vectors].index(True)
        if number not in self._found:
            self._found[number] = self._of(expert, number)
        return self._found[number]

    def _of(self, expert: Expert, number: int) -> float:
        vector = expert.vector
        names = [
            name
            for name in vector
            if self._kind == "paper" or self._matrices.is_matrix(name, vector.shape(name))
        ]
        parts = [_measured(expert, name) for name in names]
        found = [m for _, _, m in watched(stream_parts(parts), len(parts), "experts' magnitudes")]
        if self._kind == "paper":
            total, kept = (math.fsum(m[i] for m in found) for i in (0, 1))
            scale = -math.log(self._density) / self._shares[number] if total else 0.0
        else:
            total = math.fsum(m[0] / m[2] for m in found)
            kept = math.fsum(m[1] / m[3] for m in found if m[3])
            scale = -math.log10(self._density)
        return scale * kept / total if total else 1.0


def _measured(expert: Expert, name: str) -> Part:
    """Return the part that computes of a layer two sums of magnitudes and two counts.

    They are of all entries and of those kept: (sum of all, of kept, number of all, of kept).
    """
    vector = expert.vector

    def compute(delta: Tensor) -> tuple[float, float, int, int]:
        kept = delta[expert.kept(delta)].abs()
        sums = (float(x.sum(dtype=torch.float64)) for x in (delta.abs(), kept))
        return (*sums, delta.numel(), kept.numel())

    return Part(
        name, 0, vector.shape(name).numel(), lambda: at_least_float32(vector[name]), compute
    )
