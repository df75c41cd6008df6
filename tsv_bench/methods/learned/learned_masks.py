"""Masks of task vectors, learned on labelled images of the tasks, for Localize-and-Stitch."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Lock

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.bench import Bench, check_fits
from tsv_bench.task_vectors.bits import pack_bits
from tsv_bench.task_vectors.lazy import LazyMapping
from tsv_bench.task_vectors.order_statistics import trim_threshold
from tsv_bench.task_vectors.streaming import watched

log = logging.getLogger(__name__)

AT_ONCE = 32  # images that pass through the network at once; it changes no result


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a mask is learned: see `localize_and_stitch`."""

    density: float | int
    learning_rate: float | int
    epochs: int
    batch_size: int
    penalty: float | int
    confidence: float | int


class LearnedMasks:
    """The masks of all tasks as bits, learned one task at a time when a layer is first wanted."""

    def __init__(self, vectors: Mapping[str, LazyMapping], bench: Bench, recipe: Recipe) -> None:
        self._vectors, self._bench, self._recipe = vectors, bench, recipe
        self._bits: dict[str, Tensor] | None = None
        self._lock = Lock()

    def bits(self, name: str) -> UInt8[Tensor, "tasks bytes"]:
        """Return all tasks' masks of a layer. Raises ValueError if a task has no images."""
        with self._lock:
            if self._bits is None:
                self._bits = self._learn()
        return self._bits[name]

    def _learn(self) -> dict[str, Tensor]:
        bench = self._bench
        check_fits(bench, self._vectors)
        found = [
            learn_mask(bench, task, vector, self._recipe)
            for task, vector in watched(self._vectors.items(), len(self._vectors), "masks")
        ]
        return {name: torch.cat([bits[name] for bits in found]) for name in found[0]}


def learn_mask(
    bench: Bench, task: str, vector: LazyMapping, recipe: Recipe
) -> dict[str, UInt8[Tensor, "1 bytes"]]:
    """Return the bits of one task's mask, layer by layer.

    Of a vector without changes it is empty. If the loss stops being finite, the mask of the last
    finite loss is returned, and a warning names step and task. In memory are the task vector, the
    logits of its mask, the network's weights and their gradients.
    """
    threshold = trim_threshold(vector, recipe.density)
    pretrained = bench.pretrained
    deltas = {name: at_least_float32(vector[name]) for name in vector}
    inside = {name: delta.abs() >= threshold for name, delta in deltas.items()}
    kept = {name: is_kept(inside[name], delta) for name, delta in deltas.items()}
    deltas = {n: d.to(pretrained[n]) for n, d in deltas.items() if d.any()}  # others have no say
    if not deltas:
        return kept
    high, low = recipe.confidence, -recipe.confidence
    logits = {n: torch.where(inside[n].to(d.device), high, low).to(d) for n, d in deltas.items()}
    del inside
    for step in range(recipe.epochs):
        weights = {
            n: (pretrained[n] + logits[n].sigmoid() * d).requires_grad_() for n, d in deltas.items()
        }
        fixed = {n: pretrained[n] for n in vector if n not in weights}
        loss = add_gradients(bench, task, weights, fixed, recipe.batch_size)
        gradients = [w.grad for w in weights.values() if w.grad is not None]
        if not loss.isfinite() or not all(g.isfinite().all() for g in gradients):
            log.warning(
                f"localize_and_stitch: the loss of {task} is {loss.item():g} at step {step + 1} of "
                f"{recipe.epochs}, or its gradient is not finite. The mask before that step is "
                f"kept. Lower learning_rate."
            )
            return kept
        if step:
            kept |= {name: is_kept(s > 0, deltas[name]) for name, s in logits.items()}
        for name, weight in weights.items():
            gradient = 0 if weight.grad is None else weight.grad * deltas[name]
            mask = logits[name].sigmoid()
            logits[name] -= (recipe.learning_rate * gradient + recipe.penalty) * mask * (1 - mask)
    return kept | {name: is_kept(s > 0, deltas[name]) for name, s in logits.items()}


def is_kept(inside: Tensor, delta: Tensor) -> UInt8[Tensor, "1 bytes"]:
    """Return the bits of a mask, without the entries that fine-tuning left as they were."""
    return pack_bits((inside & (delta != 0)).reshape(1, -1)).cpu()


def add_gradients(
    bench: Bench,
    task: str,
    weights: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    batch_size: int,
) -> Tensor:
    """Add to the weights' gradients those of the sum of the batches' mean losses; return the sum.

    The sum is not over the number of batches, as in the released code.
    """
    images, labels = bench.images(task), bench.labels(task)
    total = torch.zeros(())
    with torch.enable_grad():
        for rows in spans(len(images), batch_size):
            for few in spans(rows.stop, AT_ONCE, rows.start):
                logits = bench.logits(task, bench.features({**fixed, **weights}, images[few]))
                loss = F.cross_entropy(logits, labels[few], reduction="sum")
                loss = loss / (rows.stop - rows.start)
                loss.backward()
                total = total + loss.detach().cpu()
    return total


def spans(stop: int, size: int, start: int = 0) -> Iterator[slice]:
    """Yield slices of at most ``size`` rows, in order."""
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))
