"""Which images a network classifies right."""

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
    """For each image of a split, whether its highest logit is its label. bool [images].

    ``batch_size``: images; None: up to 125 on the CPU, 500 on a GPU. ``precision``: of the image
    tower, float32, bfloat16 or float16 by autocast; None: float32 on the CPU, bfloat16 on a GPU.
    Features are normalized and compared with the head in float32. Out of memory, half the batch is
    tried once.
    """
    sizes = batch_sizes(batch_size, device, visual)
    cast = autocast(precision, device)
    run = partial(correct_in_batches, visual, head, split, device, cast)
    return with_smaller_batches(run, sizes, device)[0]


@torch.inference_mode()
def correct_in_batches(
    visual: nn.Module,
    head: Tensor,
    split: Split,
    device: str,
    cast: Callable[[], AbstractContextManager],
    batch_size: int,
) -> np.ndarray:
    if len(split) == 0:
        raise ValueError("no images to evaluate: the split is empty.")
    head, labels = head.to(device).float(), copy_async(split.labels, device)
    correct = []
    # Nothing here waits for the device: what is right stays there until the split is through.
    batches = zip(
        device_batches(split.images, batch_size, device), labels.split(batch_size), strict=True
    )
    with class_token_only(visual):
        for images, wanted in batches:
            with cast():
                features = visual(normalize(images))
            logits = F.normalize(features.float(), dim=-1) @ head.T
            correct.append(logits.argmax(dim=-1) == wanted)
    return torch.cat(correct).cpu().numpy()
