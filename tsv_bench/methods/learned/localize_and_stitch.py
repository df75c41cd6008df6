"""Localize-and-Stitch: https://arxiv.org/abs/2408.13656."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsv_bench.methods.bench import Bench
from tsv_bench.methods.knobs import (
    check_not_negative,
    check_positive,
    check_share,
    check_switch,
    check_whole,
)
from tsv_bench.methods.learned.learned_masks import LearnedMasks, Recipe
from tsv_bench.task_vectors.bits import unpack_bits
from tsv_bench.task_vectors.lazy import (
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.merge import merge_entries
from tsv_bench.task_vectors.order_statistics import trim_thresholds

__all__ = ["localize_and_stitch"]

DATA_FREE, START = 0.1, 1e-5  # the released code's densities of the two forms


def localize_and_stitch(
    task_vectors: TaskVectors,
    *,
    bench: Bench | None = None,
    density: float | int | None = None,
    data_free: bool = False,
    learning_rate: float | int = 1e7,
    epochs: int = 10,
    batch_size: int = 128,
    penalty: float | int = 1.0,
    confidence: float | int = 5.0,
) -> ServedVectors:
    """Serve every task the mean, entry by entry, of those task vectors whose masks keep the entry.

    A mask keeps the largest entries of a whole task vector, the share ``density`` (null: 0.1).
    Unless ``data_free``, these are where learning starts (null: 1e-5): the mask is sigmoid(s), s
    is ``confidence`` there and minus that elsewhere, and ``epochs`` steps lower the cross entropy
    of the task's labelled images. A step sums the gradients of batches of ``batch_size`` images,
    times ``learning_rate``; ``penalty`` weighs the sum of the mask. In the end it is rounded.
    Raises ValueError for knobs out of range.
    """
    check_switch("data_free", data_free)
    if density is not None:
        check_share("density", density, "the share of entries that a mask keeps, or starts from")
    check_positive("learning_rate", learning_rate, "what a gradient is multiplied by")
    check_whole("epochs", epochs, "the number of steps, each on all images", 0)
    check_whole("batch_size", batch_size, "the number of images whose mean loss is taken", 1)
    check_not_negative("penalty", penalty, "the weight of the mask's sum")
    check_positive("confidence", confidence, "how far from 0 the mask's logits start")
    if not task_vectors:
        return {}
    if data_free:
        share = DATA_FREE if density is None else density
        thresholds = trim_thresholds(lazy_vectors(task_vectors.values()), share)
        rule = partial(stitch_largest, thresholds=thresholds)
        return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), rule))
    if bench is None:
        raise ValueError(
            "localize_and_stitch learns on images of the tasks. Give it a bench, or choose "
            "data_free=true, which keeps the largest entries."
        )
    recipe = Recipe(
        density=START if density is None else density,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        penalty=penalty,
        confidence=confidence,
    )
    vectors = lazy_vectors(task_vectors.values())
    masks = LearnedMasks(dict(zip(task_vectors, vectors, strict=True)), bench, recipe)

    def parts(name: str) -> Sequence[Part]:
        bits = masks.bits(name)  # learned here, before parts are computed side by side
        entries = vectors[0].shape(name).numel() // max(vectors[0].num_rows(name), 1)

        def stitched(deltas: Float[Tensor, "tasks ..."], start: int) -> Float[Tensor, "..."]:
            # Of all parts but the last the number of entries is a multiple of 8.
            own = bits[:, start * entries // 8 :].to(deltas.device)
            num = deltas[0].numel()
            kept = torch.stack([unpack_bits(of_task, num) for of_task in own])
            return stitch(deltas, kept.reshape(deltas.shape))

        found = blocks(vectors, name, stitch, multiple=8)
        return [replace(part, compute=partial(stitched, start=part.start)) for part in found]

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def stitch(
    deltas: Float[Tensor, "tasks ..."], kept: Bool[Tensor, "tasks ..."]
) -> Float[Tensor, "..."]:
    """Return the mean over the tasks that keep an entry; zero where none does."""
    return (deltas * kept).sum(dim=0) / kept.sum(dim=0).clamp(min=1)


def stitch_largest(
    deltas: Float[Tensor, "tasks ..."], thresholds: Sequence[float]
) -> Float[Tensor, "..."]:
    """Return the mean over the tasks whose entry reaches the task's threshold and is not zero."""
    magnitudes = deltas.abs()
    least = magnitudes.new_tensor(thresholds).reshape(-1, *[1] * (deltas.ndim - 1))
    return stitch(deltas, (magnitudes >= least) & (magnitudes > 0))
