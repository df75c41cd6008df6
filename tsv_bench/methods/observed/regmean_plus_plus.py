"""RegMean++: https://arxiv.org/abs/2508.03121."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

import torch
from jaxtyping import Shaped
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.bench import Bench, check_bench, check_fits
from tsv_bench.methods.knobs import check_choice, check_range
from tsv_bench.methods.observed.normal_equations import Sums
from tsv_bench.methods.observed.observations import WORK, Observed
from tsv_bench.task_vectors.lazy import (
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
    stacked,
    widest_dtype,
)
from tsv_bench.task_vectors.merge import mean
from tsv_bench.task_vectors.places import place_of
from tsv_bench.task_vectors.streaming import watched

__all__ = ["regmean_plus_plus"]

BATCH = 32  # images that pass through a block at once
POST_NORM = "ln_post."  # as open_clip calls the norm behind the blocks


def regmean_plus_plus(
    task_vectors: TaskVectors,
    *,
    bench: Bench | None,
    off_diagonal: float | int = 0.95,
    post_norm: str = "pretrained",
) -> ServedVectors:
    """Serve every task RegMean's linear layers, each from inputs that the merged model makes.

    Blocks are merged in order. A task's images come through the merged blocks before, then through
    the task's own block, whose inputs are seen. The projection behind the blocks is merged alike.
    ``off_diagonal`` as in `regmean`. All else is averaged; the norm behind the blocks stays
    pretrained if ``post_norm`` is "pretrained", and is averaged if it is "mean". Raises ValueError
    for knobs out of range.
    """
    check_range(
        "off_diagonal", off_diagonal, 0, 1,
        "by what x^T x is scaled beside its diagonal; 1 leaves it as it is",
    )  # fmt: skip
    check_choice("post_norm", post_norm, ("pretrained", "mean"), "what the norm behind blocks is")
    if not task_vectors:
        return {}
    check_bench("regmean_plus_plus", bench)
    merged = BlockByBlock(task_vectors, bench, off_diagonal, post_norm)
    return dict.fromkeys(task_vectors, LazyVector(merged.vectors, merged.parts))


class BlockByBlock:
    """All blocks' matrices, merged when the first one is wanted, and kept.

    Nothing is read before. All are merged then, as open_clip has the projection behind the blocks
    among its first layers. Once a vector is read, what is kept is what the reader has.
    """

    def __init__(
        self, task_vectors: TaskVectors, bench: Bench, off_diagonal: float | int, post_norm: str
    ) -> None:
        # In one order, as the network carries a rounding error on and makes it larger.
        self._tasks = sorted(task_vectors)
        self.vectors = lazy_vectors(task_vectors[task] for task in self._tasks)
        self._bench, self._off_diagonal, self._post_norm = bench, off_diagonal, post_norm
        self._matrices: dict[str, Tensor] | None = None
        self._lock = Lock()  # layers are computed side by side

    def parts(self, name: str) -> Sequence[Part]:
        """Return the parts of a layer of the merged vector."""
        shape = self.vectors[0].shape(name)
        if len(shape) != 2:
            return blocks(self.vectors, name, self._rule(name))

        def compute(nothing: None) -> Tensor:
            found = self.matrices().get(name)  # a matrix that multiplies nothing is averaged
            return self._mean(name) if found is None else found

        # Alone: the first one merges all.
        return [Part(name, 0, WORK * shape.numel(), lambda: None, compute, alone=True)]

    def matrices(self) -> dict[str, Tensor]:
        """Return the merged delta of every matrix that has inputs."""
        with self._lock:
            if self._matrices is None:
                with torch.no_grad():
                    self._matrices = self._merge()
            return self._matrices

    def _rule(self, name: str) -> Callable[[Tensor], Tensor]:
        if name.startswith(POST_NORM) and self._post_norm == "pretrained":
            return lambda deltas: torch.zeros_like(deltas[0])
        return mean

    def _mean(self, name: str) -> Tensor:
        deltas = stacked((vector[name] for vector in self.vectors), len(self.vectors))
        return self._rule(name)(deltas)

    def _merge(self) -> dict[str, Tensor]:
        bench = self._bench
        check_fits(bench, dict(zip(self._tasks, self.vectors, strict=True)))
        depths = {name: place_of(name).depth for name in self.vectors[0]}
        outside = [name for name, depth in depths.items() if depth is None]
        averaged = self._added(outside, {name: self._mean(name) for name in outside})
        tokens = {
            task: torch.cat(
                [bench.embed(averaged, images) for images in batches(bench.images(task))]
            )
            for task in self._tasks
        }
        del averaged
        found: dict[str, Tensor] = {}
        numbers = range(bench.num_blocks)
        for number in watched(numbers, len(numbers), "blocks"):
            own = [name for name, depth in depths.items() if depth == number]
            merged = self._linear(
                own, tokens, lambda w, x, number=number: bench.run_block(w, number, x)
            )
            rest = {name: self._mean(name) for name in own if name not in merged}
            weights = self._added(own, merged | rest)
            for of_task in tokens.values():
                for batch in batches(of_task):  # in place: tokens of one depth are enough
                    batch.copy_(bench.run_block(weights, number, batch))
            found |= merged
        return found | self._linear(outside, tokens, bench.read_out)

    def _linear(
        self,
        names: Sequence[str],
        tokens: Mapping[str, Tensor],
        run: Callable[[Mapping[str, Tensor], Tensor], object],
    ) -> dict[str, Tensor]:
        """Return the merged deltas of those layers that multiply what ``run`` passes to them.

        One task's weights and statistics are in memory at a time, and sums of all before.
        """
        sums: dict[str, Sums] = {}
        axes: dict[str, int] = {}
        for task, vector in zip(self._tasks, self.vectors, strict=True):
            deltas = {name: at_least_float32(vector[name]) for name in names}
            weights = self._added(names, deltas)
            seen = self._bench.linear_inputs(
                weights, lambda w=weights, t=task: [run(w, batch) for batch in batches(tokens[t])]
            )
            for name in seen:
                how, delta = seen.gathered(name), deltas[name]
                axes[name] = how.axis
                delta = delta if how.axis == 1 else delta.mT
                gram = seen[name].to(delta.device)
                layer = sums.setdefault(name, Sums(self._off_diagonal))
                layer.add(Observed(delta, gram, how.count))
        found = {}
        for name in list(sums):
            equations = sums.pop(name).equations()
            delta = equations.nearest_to(equations.mean)  # the mean where no image reaches
            delta = delta if axes[name] == 1 else delta.mT
            found[name] = delta.to(widest_dtype(self.vectors, name)).contiguous()
        return found

    def _added(self, names: Sequence[str], deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights: the pretrained ones with deltas added, where the bench computes."""
        pretrained = self._bench.pretrained
        return {name: pretrained[name] + deltas[name].to(pretrained[name]) for name in names}


def batches(rows: Shaped[Tensor, "rows ..."]) -> Iterator[Tensor]:
    """Yield views of some images, or of their tokens, at a time."""
    return iter(rows.split(BATCH))
