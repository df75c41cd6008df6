"""ProDistill, progressive layer-wise distillation: https://arxiv.org/abs/2502.12706."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.bench import Bench, check_bench, check_fits
from tsv_bench.methods.knobs import check_choice, check_not_negative, check_positive, check_whole
from tsv_bench.methods.learned.block_coefficients import PER, Block, block_coefficients
from tsv_bench.methods.learned.learning import generator
from tsv_bench.methods.learned.streams import Streams, Tokens
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
    widest_dtype,
)
from tsv_bench.task_vectors.places import place_of
from tsv_bench.task_vectors.streaming import watched

__all__ = ["pro_distill"]

log = logging.getLogger(__name__)


def pro_distill(
    task_vectors: TaskVectors,
    *,
    bench: Bench | None,
    per: str = "entry",
    start: float | int = 0.3,
    outside: float | int = 0.3,
    learning_rate: float | int = 0.01,
    epochs: int = 100,
    batch_size: int = 128,
) -> ServedVectors:
    """Serve every task a sum of task vectors whose coefficients are learned block by block.

    In each residual block Adam lowers the sum of squared differences between what the merged block
    makes of the merged network's tokens and what a task's own block makes of its own network's, on
    the task's images. There is a coefficient of each task for each ``per``: entry, tensor, or task,
    which is one for all of the block. They begin at ``start``; layers outside of blocks have
    ``outside``. A block whose loss would end above its start keeps the start. Learning begins when
    the first layer of a block is wanted, and finished blocks are kept on disk: a Run that was
    killed goes on behind them. Raises ValueError for knobs out of range, or without a bench.
    """
    check_choice("per", per, PER, "for what there is a coefficient of each task")
    check_not_negative("start", start, "the coefficients with which learning starts")
    check_not_negative("outside", outside, "the coefficient of layers outside of blocks")
    check_positive("learning_rate", learning_rate, "how far Adam moves a coefficient in one step")
    check_whole("epochs", epochs, "how often all images are seen", 0)
    check_whole("batch_size", batch_size, "the number of images in a step, of all tasks", 1)
    if not task_vectors:
        return {}
    check_bench("pro_distill", bench)
    tasks = sorted(task_vectors)  # in one order, as a network carries a rounding error on
    vectors = lazy_vectors(task_vectors[task] for task in tasks)
    recipe = Recipe(
        per=per,
        start=float(start),
        outside=float(outside),
        learning_rate=float(learning_rate),
        epochs=epochs,
        batch_size=batch_size,
    )

    @cache
    def learned() -> dict[str, Mapping]:
        check_fits(bench, task_vectors)
        return Distillation(bench, tasks, vectors, recipe).blocks()

    def parts(name: str) -> Sequence[Part]:
        if block_of(name, bench) is None:
            return blocks(vectors, name, recipe.merge_outside)
        # Learned here and not in the part: there torch's threads are shared among parts.
        found, dtype = learned()[name], widest_dtype(vectors, name)
        entries = vectors[0].shape(name).numel()
        return [Part(name, 0, entries, lambda: found[name], lambda d: d.to(bench.device, dtype))]

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def block_of(name: str, bench: Bench) -> int | None:
    """Return the number of the residual block that a layer is in, or None."""
    depth = place_of(name).depth
    return depth if depth is not None and depth < bench.num_blocks else None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the coefficients of a block are learned: see `pro_distill`."""

    per: str
    start: float
    outside: float
    learning_rate: float
    epochs: int
    batch_size: int

    def merge_outside(self, deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
        """Return the merged delta of a layer outside of blocks."""
        return deltas.sum(dim=0) * self.outside

    def batches(self, count: int, drawn: torch.Generator) -> Iterator[Int[Tensor, " batch"]]:
        """Yield the rows of each of a block's steps; every epoch has an order of its own."""
        for _ in range(self.epochs):
            yield from torch.randperm(count, generator=drawn).split(self.batch_size)

    def num_steps(self, count: int) -> int:
        """Return how many batches there are."""
        return self.epochs * math.ceil(count / self.batch_size)


class Distillation:
    """Learn block after block, on what the merged network and each task's own make of the images.

    In memory are both streams of tokens and one block of all tasks; merged blocks lie where the
    bench keeps them. A task's own network sees the images of this task alone.
    """

    def __init__(
        self, bench: Bench, tasks: Sequence[str], vectors: Sequence[LazyMapping], recipe: Recipe
    ) -> None:
        self._bench, self._tasks, self._vectors, self._recipe = bench, tasks, vectors, recipe
        self._streams = Streams(bench, tasks)

    def blocks(self) -> dict[str, Mapping]:
        """Return layer -> what holds its merged delta, under its name, for all blocks' layers.

        That is what the bench has kept on disk, if it keeps anything, else a dict in memory.
        """
        bench, streams = self._bench, self._streams
        places = {name: block_of(name, bench) for name in self._vectors[0]}
        merged, own = self._embedded([name for name, place in places.items() if place is None])
        found: dict[str, Mapping] = {}
        losses = []
        for number in watched(range(bench.num_blocks), bench.num_blocks, "pro_distill: blocks"):
            names = [name for name, place in places.items() if place == number]
            block = Block({name: self._vectors[0].shape(name) for name in names})
            deltas = block.read(self._vectors, bench.device)
            for rows, of_task in zip(streams.rows, deltas, strict=True):
                streams.advance(number, block.layers(of_task), own[rows])
            what = f"pro_distill-{number}"
            kept = bench.kept(what)
            if kept is None:
                flat, loss = self._distilled(number, block, deltas, merged, own)
                kept = {**block.layers(flat), "loss": torch.tensor(loss, dtype=torch.float64)}
                bench.keep(what, kept)
                kept = bench.kept(what) or kept
                del flat
            del deltas
            layers = {
                name: kept[name].to(bench.device, widest_dtype(self._vectors, name))
                for name in names
            }
            losses.append(dict(zip(("start", "end"), kept["loss"].tolist(), strict=True)))
            streams.advance(number, layers, merged)
            found |= dict.fromkeys(names, kept)
        bench.note("pro_distill", {"loss": losses})
        return found

    def _embedded(self, names: Sequence[str]) -> tuple[Tokens, Tokens]:
        """Return what the first block gets in the merged network, and in each task's own."""
        shared = {}
        for name in names:
            parts = blocks(self._vectors, name, self._recipe.merge_outside)
            rows = [part.compute(part.read()) for part in parts]
            shared[name] = rows[0] if len(rows) == 1 else torch.cat(rows)
        return (
            self._streams.embedded(lambda task: shared),
            self._streams.embedded(
                lambda task: {name: at_least_float32(self._vectors[task][name]) for name in names}
            ),
        )

    def _distilled(
        self,
        number: int,
        block: Block,
        deltas: Float[Tensor, "tasks entries"],
        merged: Tokens,
        wanted: Tokens,
    ) -> tuple[Float[Tensor, " entries"], tuple[float, float]]:
        """Return a block's merged delta, and its loss on all images at the start and the end.

        ``deltas`` are taken over.
        """
        recipe, streams = self._recipe, self._streams
        coefficients = block_coefficients(
            block, deltas, recipe.per, start=recipe.start, learning_rate=recipe.learning_rate
        )
        first = coefficients.merged.clone()
        before = streams.loss(number, block.layers(first), merged, wanted)
        if before == 0 or recipe.epochs == 0:  # rounding errors would be learned
            return first, (before, before)
        drawn = generator(self._bench, " ".join(self._tasks), f"pro_distill, block {number}")
        batches, steps = recipe.batches(len(merged), drawn), recipe.num_steps(len(merged))
        for rows in watched(batches, steps, f"pro_distill: block {number}"):
            loss, gradients = streams.gradient(
                number, block.layers(coefficients.merged), merged[rows], wanted[rows]
            )
            if not loss.isfinite():
                break
            coefficients.step(block.flat(gradients).to(first))
        last = coefficients.merged
        after = streams.loss(number, block.layers(last), merged, wanted)
        if math.isfinite(after) and after <= before:
            return last, (before, after)
        log.warning(
            f"pro_distill: the loss of block {number} ended at {after:.4g}, above {before:.4g} at "
            f"its start: the block keeps the coefficients of the start. Lower learning_rate?"
        )
        return first, (before, before)
