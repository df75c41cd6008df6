"""AdaMerging: https://arxiv.org/abs/2310.02575."""

from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.bench import Bench, check_bench, check_fits
from tsv_bench.methods.knobs import (
    check_choice,
    check_not_negative,
    check_positive,
    check_range,
    check_share,
    check_switch,
    check_whole,
)
from tsv_bench.methods.learned.learning import Batches, minimize
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
    stacked,
)
from tsv_bench.task_vectors.order_statistics import trim_thresholds

__all__ = ["ada_merging"]

BY = ("layer", "task")
# Entries of all task vectors together up to which they are kept while coefficients are learned,
# 4 GB in float32: eight ViT-B/32 fit. More are read again, layer by layer, twice a step.
KEPT = 2**30


def ada_merging(
    task_vectors: TaskVectors,
    *,
    bench: Bench | None,
    by: str = "layer",
    start: float | int = 0.3,
    learning_rate: float | int = 1e-3,
    steps: int = 500,
    batch_size: int = 16,
    clamp: bool = True,
    density: float | int | None = None,
) -> ServedVectors:
    """Serve every task the sum of the task vectors, each times a coefficient that is learned.

    There is one coefficient for each task and layer, or ``by`` "task" one for each task. Adam
    lowers the sum over tasks of the mean entropy of the predictions on ``batch_size`` images, from
    ``start`` on. With ``clamp`` coefficients count as 0 below 0 and as 1 above 1. ``density`` is
    the share of a task vector's entries that are kept before, those against TIES' elected sign not
    among them; null keeps all. Learning begins when the first layer is wanted. Raises ValueError
    for knobs out of range, or without a bench.
    """
    check_choice("by", by, BY, "for what there is a coefficient of each task")
    check_switch("clamp", clamp)
    meaning = "the coefficient with which learning starts"
    if clamp:
        check_range("start", start, 0, 1, meaning)
    else:
        check_not_negative("start", start, meaning)
    check_positive("learning_rate", learning_rate, "how far Adam moves a coefficient in one step")
    check_whole("steps", steps, "the number of Adam's steps", 0)
    check_whole("batch_size", batch_size, "the number of images of each task in a step", 1)
    if density is not None:
        check_share("density", density, "the share of entries that trimming keeps")
    if not task_vectors:
        return {}
    check_bench("ada_merging", bench)
    # A sum is rounded as its terms are ordered, and learning enlarges that: the order is fixed.
    tasks = sorted(task_vectors)
    deltas = TrimmedLayers(lazy_vectors(task_vectors[task] for task in tasks), density)

    @cache
    def learned() -> dict[str, Tensor]:
        check_fits(bench, task_vectors)
        coefficients = Coefficients(bench, tasks, deltas, by=by, start=start, clamp=clamp)
        minimize(
            [coefficients.raw], coefficients.gradient(batch_size),
            steps=steps, learning_rate=learning_rate, what="ada_merging",
        )  # fmt: skip
        deltas.forget()
        return coefficients.by_layer()

    def parts(name: str) -> Sequence[Part]:
        # Learned here and not in the part: there torch's threads are shared among parts.
        return deltas.parts(name, partial(weighted_sum, coefficients=learned()[name]))

    return dict.fromkeys(task_vectors, LazyVector(deltas.vectors, parts))


def weighted_sum(
    deltas: Float[Tensor, "tasks ..."], coefficients: Float[Tensor, " tasks"]
) -> Float[Tensor, "..."]:
    """Return the sum of the deltas, each times its task's coefficient."""
    return torch.tensordot(coefficients.to(deltas), deltas, dims=1)


def agreeing(
    deltas: Float[Tensor, "tasks ..."], thresholds: Sequence[float]
) -> Float[Tensor, "tasks ..."]:
    """Return the deltas without what TIES would not merge.

    These are entries below their task's threshold, and those against the sign of the sum of the
    entries that trimming kept.
    """
    column = deltas.new_tensor(thresholds).reshape(-1, *[1] * (deltas.ndim - 1))
    kept = deltas.masked_fill(deltas.abs() < column, 0)
    return kept.masked_fill(kept * kept.sum(dim=0).sign() <= 0, 0)


def entropy(logits: Float[Tensor, "images classes"]) -> Float[Tensor, ""]:
    """Return the mean over images of the entropy of the predicted classes, in nats."""
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


class TrimmedLayers:
    """Layers' deltas of all tasks, trimmed if ``density`` is given, and kept if all fit `KEPT`."""

    def __init__(self, vectors: Sequence[LazyMapping], density: float | int | None) -> None:
        self.vectors, self._density = vectors, density
        self._kept: dict[str, Tensor] = {}

    @cached_property
    def _fit(self) -> bool:
        entries = sum(self.vectors[0].shape(name).numel() for name in self.vectors[0])
        return entries * len(self.vectors) <= KEPT

    @cached_property
    def _rule(self) -> Callable[[Tensor], Tensor] | None:
        if self._density is None:
            return None
        # These take passes of their own: a threshold is that of a whole task vector.
        return partial(agreeing, thresholds=trim_thresholds(self.vectors, self._density))

    def of(self, name: str) -> Float[Tensor, "tasks ..."]:
        """Return a layer's deltas, stacked."""
        if name in self._kept:
            return self._kept[name]
        found = stacked((vector[name] for vector in self.vectors), len(self.vectors))
        found = self._rule(found) if self._rule else found
        if self._fit:
            self._kept[name] = found
        return found

    def forget(self) -> None:
        """Keep no layer any longer."""
        self._kept.clear()

    def parts(self, name: str, rule: Callable[[Tensor], Tensor]) -> Sequence[Part]:
        """Return the parts of a rule's result, entry by entry of the trimmed deltas."""
        trim = self._rule
        return blocks(self.vectors, name, (lambda d: rule(trim(d))) if trim else rule)


class Coefficients:
    """A coefficient of each task and layer, or of each task, and the gradient of the entropy.

    `raw` is what is learned, [tasks, layers] or [tasks, 1]. In memory are the merged weights and
    their gradient, and the activations of one task's batch: the gradient of a coefficient is the
    inner product of a layer's gradient and delta, so no graph goes through the task vectors.
    """

    def __init__(
        self,
        bench: Bench,
        tasks: Sequence[str],
        deltas: TrimmedLayers,
        *,
        by: str,
        start: float | int,
        clamp: bool,
    ) -> None:
        self._bench, self._tasks, self._deltas, self._clamp = bench, tasks, deltas, clamp
        layers = list(deltas.vectors[0])
        self._groups = {name: n if by == "layer" else 0 for n, name in enumerate(layers)}
        num_groups = len(layers) if by == "layer" else 1
        self.raw = torch.full((len(tasks), num_groups), float(start), dtype=torch.float64)

    def by_layer(self) -> dict[str, Float[Tensor, " tasks"]]:
        """Return layer -> the coefficients that its deltas are multiplied by."""
        values = self.raw.clamp(0, 1) if self._clamp else self.raw
        return {name: values[:, group] for name, group in self._groups.items()}

    def gradient(self, batch_size: int) -> Callable[[], Tensor]:
        """Return a function that sets the gradient of `raw` on the next batches.

        It returns the loss: the sum over tasks of the mean entropy.
        """
        weights = dict(self._bench.pretrained)
        for name in self._groups:
            weights[name] = weights[name].detach().clone().requires_grad_(True)
        batches = {task: Batches(self._bench, task, batch_size) for task in self._tasks}

        def gradient() -> Tensor:
            self._merge_into(weights)
            losses = []
            for task in self._tasks:
                images = self._bench.images(task)
                images = images[batches[task].rows().to(images.device)]
                logits = self._bench.logits(task, self._bench.features(weights, images))
                loss = entropy(logits)
                loss.backward()
                losses.append(loss.detach())
            self.raw.grad = self._inner_products(weights)
            return torch.stack(losses).sum()

        return gradient

    @torch.no_grad()
    def _merge_into(self, weights: dict[str, Tensor]) -> None:
        for name, coefficients in self.by_layer().items():
            weight = weights[name]
            merged = weighted_sum(self._deltas.of(name), coefficients)
            weight.copy_(self._bench.pretrained[name] + merged.to(weight))
            weight.grad = None

    @torch.no_grad()
    def _inner_products(self, weights: dict[str, Tensor]) -> Float[Tensor, "tasks groups"]:
        found = torch.zeros_like(self.raw)
        # All are on the device until the last layer is done: it is waited for once.
        products = {}
        for name in self._groups:
            gradient = weights[name].grad
            if gradient is not None:  # else the network does not use this layer
                deltas = self._deltas.of(name).reshape(len(self._tasks), -1).to(gradient)
                products[name] = (deltas @ gradient.flatten()).double()
        for name, product in zip(products, torch.stack([*products.values()]).cpu(), strict=True):
            found[:, self._groups[name]] += product
        outside = (self.raw < 0) | (self.raw > 1)
        return found.masked_fill(outside, 0) if self._clamp else found
