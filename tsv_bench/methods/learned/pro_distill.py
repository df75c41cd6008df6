"""ProDistill, progressive layer-wise distillation: https://arxiv.org/abs/2502.12706."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.bench import Bench, check_bench, check_fits
from tsv_bench.methods.knobs import (
    check_choice,
    check_not_negative,
    check_positive,
    check_whole,
)
from tsv_bench.methods.learned.block_coefficients import PER, BlockCoefficients
from tsv_bench.methods.learned.learning import Adam, generator
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
from tsv_bench.task_vectors.streaming import watched

__all__ = ["pro_distill"]

log = logging.getLogger(__name__)
AT_ONCE = 32  # images that pass a block together; a step adds up their gradients
# Bytes from which on the tokens that are wanted lie on disk while a block is learned, and entries
# of all tasks' deltas in a block from which on they are read again for every step.
LARGE, MANY = 2**29, 2**27


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
    the task's images. There is a coefficient for each ``per``: entry, tensor or task of the block.
    They begin at ``start``; layers outside of blocks have ``outside``. A block whose loss would end
    above its start keeps the start. It is learned when the first layer is wanted, and finished
    blocks are kept: a Run that was killed goes on behind them. Raises ValueError for knobs out of
    range, or without a bench.
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
    recipe = Recipe(per, float(start), float(learning_rate), epochs, batch_size)

    @cache
    def learned() -> dict[str, Tensor]:
        check_fits(bench, task_vectors)
        return Distillation(bench, tasks, vectors, float(outside), recipe).blocks()

    def parts(name: str) -> Sequence[Part]:
        if place_of(name).depth is None:
            return blocks(vectors, name, lambda deltas: deltas.sum(dim=0) * float(outside))
        # Learned here and not in the part: there torch's threads are shared among parts.
        layer = learned()[name]
        return [Part(name, 0, layer.numel(), lambda: layer, lambda delta: delta)]

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


class Recipe(NamedTuple):
    """How the coefficients of a block are learned."""

    per: str
    start: float
    learning_rate: float
    epochs: int
    batch_size: int


class Distillation:
    """Two streams of tokens, of the merged network and of each task's own, block after block.

    One block of all tasks is in memory at a time. The images of all tasks stand one after another;
    each task's own network sees the rows of the task alone.
    """

    def __init__(
        self,
        bench: Bench,
        tasks: Sequence[str],
        vectors: Sequence[LazyMapping],
        outside: float,
        recipe: Recipe,
    ) -> None:
        self._bench, self._tasks, self._vectors = bench, tasks, vectors
        self._outside, self._recipe = outside, recipe
        stops = torch.tensor([len(bench.images(task)) for task in tasks]).cumsum(0).tolist()
        self._rows = [slice(a, b) for a, b in zip([0, *stops[:-1]], stops, strict=True)]

    def blocks(self) -> dict[str, Tensor]:
        """Return the merged deltas of all blocks' layers."""
        bench = self._bench
        depths = {name: place_of(name).depth for name in self._vectors[0]}
        merged, own = self._embedded([name for name, depth in depths.items() if depth is None])
        found: dict[str, Tensor] = {}
        losses = []
        for number in watched(range(bench.num_blocks), bench.num_blocks, "pro_distill: blocks"):
            names = [name for name, depth in depths.items() if depth == number]
            deltas = [BlockDeltas(vector, names, bench.device) for vector in self._vectors]
            if sum(of_task.num_entries for of_task in deltas) <= MANY:
                deltas = [dict(of_task) for of_task in deltas]
            for rows, of_task in zip(self._rows, deltas, strict=True):
                self._advance(number, self._added(of_task), own[rows])
            kept = bench.kept(f"block{number}")
            if kept is None:
                wanted = own if own.nbytes < LARGE else self._on_disk(own)
                if wanted is not own:
                    del own
                layers, loss = self._distilled(number, deltas, merged, wanted)
                own = wanted if isinstance(wanted, Tensor) else wanted["tokens"]
                kept = {**layers, "loss": torch.tensor(loss, dtype=torch.float64)}
                bench.keep(f"block{number}", kept)
            layers = {name: kept[name].to(bench.device) for name in names}
            losses.append(kept["loss"].tolist())
            self._advance(number, self._added(layers), merged)
            found |= layers
        bench.note("pro_distill", {"loss": [{"start": a, "end": b} for a, b in losses]})
        return found

    @torch.no_grad()
    def _embedded(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the tokens that the first block gets, in the merged network and each task's own.

        They are float32 on the CPU, [images, tokens, width].
        """
        deltas = {n: sum(v[n].float() for v in self._vectors) * self._outside for n in names}
        merged = self._tokens(dict.fromkeys(self._tasks, self._added(deltas)))
        own = self._tokens(
            {
                task: self._added({name: vector[name] for name in names})
                for task, vector in zip(self._tasks, self._vectors, strict=True)
            }
        )
        return merged, own

    def _tokens(self, weights: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        found: Tensor | None = None
        for task, rows in zip(self._tasks, self._rows, strict=True):
            images = self._bench.images(task)
            for start, part in zip(
                range(0, len(images), AT_ONCE), images.split(AT_ONCE), strict=True
            ):
                tokens = self._bench.embed(weights[task], part).cpu()
                if found is None:
                    found = tokens.new_empty(self._rows[-1].stop, *tokens.shape[1:])
                found[rows.start + start : rows.start + start + len(part)] = tokens
        return found

    def _on_disk(self, tokens: Tensor) -> Tensor | LazyMapping:
        """Return the tokens as what the bench keeps, read on access; themselves if it cannot."""
        self._bench.keep("wanted", {"tokens": tokens})
        kept = self._bench.kept("wanted")
        return tokens if kept is None else as_lazy(kept)

    @torch.no_grad()
    def _advance(self, number: int, weights: Mapping[str, Tensor], tokens: Tensor) -> None:
        """Replace tokens by what a block makes of them."""
        for batch in tokens.split(AT_ONCE):
            batch.copy_(self._bench.run_block(weights, number, batch.to(self._bench.device)))

    def _added(self, deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pretrained = self._bench.pretrained
        return {name: pretrained[name] + deltas[name].to(pretrained[name]) for name in deltas}

    def _distilled(
        self,
        number: int,
        deltas: Sequence[Mapping[str, Tensor]],
        merged: Float[Tensor, "images tokens width"],
        wanted: Tensor | LazyMapping,
    ) -> tuple[dict[str, Tensor], tuple[float, float]]:
        """Return a block's merged deltas, and its loss on all images at the start and the end."""
        recipe, bench = self._recipe, self._bench
        coefficients = BlockCoefficients(deltas, recipe.per, recipe.start)
        adam = Adam(coefficients.parameters, recipe.learning_rate)
        first = coefficients.merged()
        before = self._loss(number, first, merged, wanted)
        drawn = generator(bench, " ".join(self._tasks), f"block {number}")
        steps = recipe.epochs * math.ceil(len(merged) / recipe.batch_size)
        batches = self._batches(len(merged), drawn)
        for rows in watched(batches, steps, f"pro_distill: block {number}"):
            weights = {
                name: weight.requires_grad_(True)
                for name, weight in self._added(coefficients.merged()).items()
            }
            for part in rows.split(AT_ONCE):
                x, y = (of(stream, part).to(bench.device) for stream in (merged, wanted))
                with torch.enable_grad():
                    loss = (bench.run_block(weights, number, x) - y).square().sum()
                    loss.backward()
            adam.step(
                lambda n, w=weights: coefficients.gradient(n, {k: v.grad for k, v in w.items()})
            )
        last = coefficients.merged()
        after = self._loss(number, last, merged, wanted)
        if after <= before:
            return last, (before, after)
        log.warning(
            f"pro_distill: the loss of block {number} ended at {after:.4g}, above {before:.4g} at "
            f"the start: the block keeps the coefficients of the start. Lower learning_rate?"
        )
        return first, (before, before)

    def _batches(self, count: int, drawn: torch.Generator) -> Iterator[Tensor]:
        for _ in range(self._recipe.epochs):
            yield from torch.randperm(count, generator=drawn).split(self._recipe.batch_size)

    @torch.no_grad()
    def _loss(
        self,
        number: int,
        deltas: Mapping[str, Tensor],
        merged: Tensor,
        wanted: Tensor | LazyMapping,
    ) -> float:
        """Return the sum of squared differences on all images; infinity if it is not finite."""
        weights, total = self._added(deltas), 0.0
        for rows in torch.arange(len(merged)).split(AT_ONCE):
            found = self._bench.run_block(weights, number, of(merged, rows).to(self._bench.device))
            difference = found - of(wanted, rows).to(found)
            total += float(difference.square().sum(dtype=torch.float64))
        return total if math.isfinite(total) else math.inf


def of(stream: Tensor | LazyMapping, rows: Tensor) -> Tensor:
    """Return some rows of a stream of tokens, in memory or on disk."""
    if isinstance(stream, Tensor):
        return stream[rows]
    return torch.cat([stream.rows("tokens", row, row + 1) for row in rows.tolist()])


class BlockDeltas(Mapping):
    """One task's deltas of some layers, read on access in float32 at least."""

    def __init__(self, vector: LazyMapping, names: Sequence[str], device: str) -> None:
        self._vector, self._names, self._device = vector, names, device

    @property
    def num_entries(self) -> int:
        """The entries of all these layers."""
        return sum(self._vector.shape(name).numel() for name in self._names)

    def __getitem__(self, name: str) -> Tensor:
        return at_least_float32(self._vector[name]).to(self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
