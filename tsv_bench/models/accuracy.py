"""Which images a network classifies correctly."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsv_bench.data import Split
from tsv_bench.models import class_token_only, normalize
from tsv_bench.models.devices import (
    autocast,
    batch_sizes,
    copy_async,
    device_batches,
    even_batch_size,
    side_by_side,
    with_smaller_batches,
)


def correct_images(
    visual: nn.Module,
    head: Tensor,
    split: Split,
    device: str,
    *,
    batch_size: int | None = None,
    precision: str | None = None,
) -> np.ndarray:
    """Return for each image of a split whether its highest logit is its label, bool [images].

    ``head`` is [classes, dim]. ``batch_size`` is the number of images at a time; None takes up to
    125 on the CPU and 500 on a GPU. ``precision`` of the image tower is float32, bfloat16 or
    float16, by autocast; None takes float32 on the CPU and bfloat16 on a GPU. Features are
    normalized and multiplied with the head in float32. Half the batch size is tried once if memory
    runs out. Raises ValueError if the split is empty, a setting is out of range, or memory is short
    even so.
    """
    sizes = batch_sizes(batch_size, device, visual)
    cast = autocast(precision, device)
    run = partial(correct_in_batches, visual, head, split, device, cast)
    return with_smaller_batches(run, sizes, device)[0]


def correct_in_batches(
    visual: nn.Module,
    head: Tensor,
    split: Split,
    device: str,
    cast: Callable[[], AbstractContextManager],
    batch_size: int,
    adapt: Callable[[Tensor], Tensor] | None = None,
) -> np.ndarray:
    """Compute `correct_images` with this batch size and the autocast context that ``cast`` makes.

    On a CPU as many batches are computed side by side as torch has threads, each by one.

    ``adapt`` changes the features, in float32, before they are normalized. Raises
    torch.OutOfMemoryError if the batch is too large for the device.
    """
    if len(split) == 0:
        raise ValueError("no images to evaluate: the split is empty.")
    head, labels = head.to(device).float(), copy_async(split.labels, device)

    @torch.inference_mode()
    def correct(images: Tensor, wanted: Tensor) -> Tensor:
        with cast():
            features = visual(normalize(images, visual))
        features = features.float() if adapt is None else adapt(features.float())
        logits = F.normalize(features, dim=-1) @ head.T
        return logits.argmax(dim=-1) == wanted

    # Nothing waits for a GPU here: results stay there until the split is done.
    size = even_batch_size(len(split), batch_size, device)
    images = device_batches(split.images, size, device)
    with class_token_only(visual):
        found = side_by_side(correct, device, images, labels.split(size))
    return torch.cat(found).cpu().numpy()
