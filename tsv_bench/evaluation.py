"""Top-1 accuracy of served vectors, image by image."""

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsv_bench import task_vectors
from tsv_bench.data import Split
from tsv_bench.models import Backbone, class_token_only, normalize
from tsv_bench.scores import Score
from tsv_bench.streaming import LazyVector, gather, stream

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# Images. On the CPU small enough for the activations to stay in a core's cache, which is counted in
# tokens; on a GPU large enough that launching its kernels is not what takes the time.
BATCH_SIZES = {"cpu": 125, "cuda": 500}
TOKENS = 2000  # ViT-B/32: 40 images of 50, 26 ms an image where 125 at once take 31
PRECISIONS = ("float32", "bfloat16", "float16")


def correct_images(
    visual: nn.Module,
    head: Tensor,
    split: Split,
    device: str,
    *,
    batch_size: int | None = None,
    precision: str | None = None,
) -> np.ndarray:
    """For each image of a split, whether its highest logit is its label. bool [images].

    ``batch_size``: images; None: up to 125 on the CPU, 500 on a GPU. ``precision``: of the image
    tower, float32, bfloat16 or float16 by autocast; None: float32 on the CPU, bfloat16 on a GPU.
    Features are normalized and compared with the head in float32. Out of memory, half the batch is
    tried once.
    """
    sizes = batch_sizes(batch_size, device, visual)
    cast = autocast(precision, device)
    return that_fits(partial(_correct_images, visual, head, split, device, cast), sizes, device)


@torch.inference_mode()
def _correct_images(
    visual: nn.Module,
    head: Tensor,
    split: Split,
    device: str,
    cast: Callable[[], AbstractContextManager],
    batch_size: int,
) -> np.ndarray:
    if len(split) == 0:
        raise ValueError("no images to evaluate: the split is empty.")
    head, labels = head.to(device).float(), to_device(split.labels, device)
    correct = []
    # Nothing here waits for the device: what is right stays there until the split is through.
    batches = zip(
        on_device(split.images, batch_size, device), labels.split(batch_size), strict=True
    )
    with class_token_only(visual):
        for images, wanted in batches:
            with cast():
                features = visual(normalize(images))
            logits = F.normalize(features.float(), dim=-1) @ head.T
            correct.append(logits.argmax(dim=-1) == wanted)
    return torch.cat(correct).cpu().numpy()


def on_device(images: Tensor, batch_size: int, device: str) -> Iterator[Tensor]:
    """uint8 images, batch by batch, on the device.

    For a GPU the next batch is read from the memory map, into pinned memory, while this one is
    computed. On the CPU batches are views of the map, read where they are normalized: a thread to
    read ahead would take the time from the forward pass.
    """
    parts = images.split(batch_size)
    if torch.device(device).type != "cuda":
        yield from (part.to(device) for part in parts)
        return
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = reader.submit(parts[0].pin_memory)
        for following in (*parts[1:], None):
            ready = ahead.result()
            if following is not None:
                ahead = reader.submit(following.pin_memory)
            yield ready.to(device, non_blocking=True)


def to_device(tensor: Tensor, device: str) -> Tensor:
    """The tensor on the device; towards a GPU without waiting for what that has to do."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def autocast(precision: str | None, device: str) -> Callable[[], AbstractContextManager]:
    """Makes the context in which a network computes in ``precision``, see `chosen_precision`."""
    precision = chosen_precision(precision, device)
    if precision == "float32":
        return nullcontext
    return partial(torch.autocast, torch.device(device).type, getattr(torch, precision))


def chosen_precision(precision: str | None, device: str) -> str:
    """None: float32 on the CPU, bfloat16 on a GPU. ValueError when there is no such precision."""
    if precision is None:
        return "bfloat16" if torch.device(device).type == "cuda" else "float32"
    check_precision(precision, "evaluation.precision")
    return precision


def check_precision(precision: str, setting: str) -> None:
    """ValueError when there is no such precision; ``setting`` is where it was chosen."""
    if precision not in PRECISIONS:
        raise ValueError(f"{setting}={precision!r} is not one of {', '.join(PRECISIONS)}.")


def batch_sizes(batch_size: int | None, device: str, visual: nn.Module | None = None) -> list[int]:
    """What is tried in turn: the size that was asked for (None: the device's own), then half."""
    if batch_size is None:
        kind = torch.device(device).type
        batch_size = BATCH_SIZES.get(kind, BATCH_SIZES["cpu"])
        positions = getattr(visual, "positional_embedding", None)
        if kind == "cpu" and positions is not None:
            batch_size = max(1, min(batch_size, TOKENS // len(positions)))
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(
            f"evaluation.batch_size={batch_size!r} is not a whole number of at least 1."
        )
    return [batch_size] if batch_size == 1 else [batch_size, batch_size // 2]


def that_fits(
    run: Callable[[int], Result],
    sizes: list[int],
    device: str,
    work: str = "evaluate",
    remedy: str = "Lower evaluation.batch_size, end what else uses it, or set device=cpu.",
) -> Result:
    """``run`` with the first of the batch sizes that the device has memory for.

    A size that does not fit is taken off ``sizes``, so that it is tried once. ValueError, with the
    ``remedy``, when the last does not fit either.
    """
    tried = []
    while True:
        try:
            return run(sizes[0])
        except torch.OutOfMemoryError:
            tried.append(sizes[0])
        # Only here, where no traceback holds the activations any more.
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
        if len(sizes) == 1:
            raise ValueError(
                f"{device} has no memory to {work} {' or '.join(map(str, tried))} images at a "
                f"time. {remedy}"
            )
        sizes.pop(0)
        log.warning(f"{device} is out of memory at {tried[-1]} images; trying {sizes[0]}")


class Evaluator:
    """Serves vectors with one working copy of a backbone's image tower."""

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, Tensor],
        device: str,
        *,
        batch_size: int | None = None,
        precision: str | None = None,
    ) -> None:
        self._visual = copy.deepcopy(backbone.visual).to(device).eval()
        self._heads = {task: head.to(device) for task, head in heads.items()}
        self._device = device
        # Those that did not fit are not tried again.
        self._sizes = batch_sizes(batch_size, device, backbone.visual)
        self._cast = autocast(precision, device)
        self._pretrained = on_the_device(backbone.pretrained, device)
        self.seconds_computing = 0.0  # of vectors that were served uncomputed
        self._vector: Mapping[str, Tensor] | None = None  # what was served last,
        self._moved: Mapping[str, Tensor] = {}  # and its copy on the device

    def correct(
        self,
        served: Mapping[str, Mapping[str, Tensor]],
        alpha: float,
        splits: Mapping[str, Split],
        done: Callable[[], object] = lambda: None,
    ) -> dict[str, np.ndarray]:
        """Per task, which images of its split are right with pretrained + alpha * served[task].

        ``done`` is called after every task.
        """
        correct, loaded = {}, None
        for task, split in splits.items():
            vector = served[task]
            if vector is not loaded:  # one vector served to all is loaded once
                self._load(vector, alpha)
                loaded = vector
            run = partial(
                _correct_images, self._visual, self._heads[task], split, self._device, self._cast
            )
            correct[task] = that_fits(run, self._sizes, self._device)
            done()
        return correct

    def _load(self, vector: Mapping[str, Tensor], alpha: float) -> None:
        if isinstance(vector, LazyVector):
            started = time.monotonic()
            vector = gather(stream(vector))
            self.seconds_computing += time.monotonic() - started
        if vector is not self._vector:  # thirty alphas: the way to the device is gone once
            self._moved = {}
            self._moved, self._vector = on_the_device(vector, self._device), vector
        self._visual.load_state_dict(task_vectors.apply(self._pretrained, self._moved, alpha))


def on_the_device(state: Mapping[str, Tensor], device: str) -> Mapping[str, Tensor]:
    """The tensors on the device; the very same mapping, lazy or not, where that is the CPU."""
    if torch.device(device).type == "cpu":
        return state
    return {name: state[name].to(device) for name in state}


def score(correct: np.ndarray) -> Score:
    """Counts and accuracy, in [0, 1]."""
    hits = int(correct.sum())
    return Score(accuracy=hits / len(correct), correct=hits, total=len(correct))


def normalized_accuracy(accuracy: Mapping[str, float], individual: Mapping[str, float]) -> float:
    """Mean over tasks of accuracy over that of the task's own fine-tuned model.

    Not the ratio of the means. ValueError when an individual model is never right.
    """
    for task in accuracy:
        if individual[task] == 0:
            raise ValueError(
                f"the fine-tuned model of {task} gets no image right, so accuracies cannot be "
                f"normalized by it. Is its checkpoint of this task and backbone?"
            )
    return sum(accuracy[task] / individual[task] for task in accuracy) / len(accuracy)
