"""Fine-tuning a backbone's image tower on one task, under its frozen zero-shot head."""

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsv_bench.data import Split
from tsv_bench.models import devices, normalize
from tsv_bench.models.distributed import ALONE, Group
from tsv_bench.models.training import Recipe, batch_rows, part_of, step_generator, train


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """How a backbone is fine-tuned; the task says for how many epochs.

    Images come from the cache of decoded pixels: resized and center-cropped as for evaluation,
    then moved by ``shift``. With shift 0, as for the paper's backbones, nothing else varies them.
    The reference trains on open_clip's training transform instead, a crop of 90 to 100% of the
    original image with an aspect ratio of 3:4 to 4:3, drawn anew each time. What that changes in
    accuracy was not measured. The reference also ends an epoch with its ragged batch; here it is
    left out, other images every time.
    """

    batch_size: int  # images of a step, over all parts and processes
    rate: float  # peak learning rate of AdamW
    warmup: float | int  # linear warm-up: a share of the steps below 1, else a number of steps
    weight_decay: float
    clip: float  # largest norm of the gradient
    shift: int  # training images are moved by up to so many pixels, wrapping around
    accumulate: int = 1  # parts of a batch, one after the other: less memory, the same gradient
    precision: str = "float32"  # of the forward pass, by autocast; float16 with scaled losses

    def __post_init__(self) -> None:
        devices.check_precision(self.precision, "backbone.finetune.precision")
        for name, least in (("batch_size", 1), ("shift", 0), ("accumulate", 1)):
            if not isinstance(value := getattr(self, name), int) or value < least:
                raise ValueError(
                    f"backbone.finetune.{name}={value!r} is not a whole number of at least {least}."
                )
        for name in ("rate", "warmup", "weight_decay", "clip"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"backbone.finetune.{name}={value!r} is not a number from 0 up.")

    @property
    def settings(self) -> dict[str, Any]:
        """As plain data; what has a default only where it differs.

        Checkpoints are found by a hash of this: one that was made before a field existed is found
        as long as the field keeps its default.
        """
        named = {field.name: field.default for field in fields(self)}
        return {n: v for n, v in asdict(self).items() if v != named[n]}

    def recipe(self, epochs: int, num_images: int) -> Recipe:
        batch_size = min(self.batch_size, num_images)
        steps = epochs * (num_images // batch_size)
        warmup = round(self.warmup * steps) if self.warmup < 1 else self.warmup
        return Recipe(
            steps=steps,
            batch_size=batch_size,
            rate=self.rate,
            warmup_steps=min(warmup, steps),
            weight_decay=self.weight_decay,
            clip=self.clip,
        )


def finetune(
    visual: nn.Module,
    head: Tensor,
    split: Split,
    recipe: Recipe,
    *,
    shift: int,
    seed: int,
    label: str,
    resume: Path,
    save_every: float,
    device: str,
    accumulate: int = 1,
    precision: str = "float32",
    group: Group = ALONE,
) -> nn.Module:
    """A copy of the image tower, all of it trained with cross-entropy under the frozen head.

    Every batch is the same however many processes and parts share it. ValueError when it has fewer
    images than these.
    """
    num_parts = accumulate * group.size
    if recipe.batch_size < num_parts:
        raise ValueError(
            f"a batch of {recipe.batch_size} images cannot be shared by {group.size} processes in "
            f"{accumulate} parts each. Lower backbone.finetune.accumulate, or start fewer."
        )
    visual = copy.deepcopy(visual).to(device).requires_grad_(True)
    cast = devices.autocast(precision, device)

    def loss_at(step: int) -> Iterator[Tensor]:
        rows = batch_rows(len(split), recipe.batch_size, step, seed)
        moved = torch.randint(-shift, shift + 1, (2,), generator=step_generator(seed + 1, step))
        for part in range(group.rank, num_parts, group.size):
            own = part_of(rows, part, num_parts)
            images = normalize(devices.copy_async(split.images[own], device))
            labels = devices.copy_async(split.labels[own], device)
            with cast():
                features = visual(images.roll(moved.tolist(), dims=(2, 3)))
            logits = F.normalize(features.float(), dim=-1) @ head.T
            yield F.cross_entropy(logits, labels) * (len(own) / len(rows))

    train(
        visual,
        loss_at,
        recipe,
        label=label,
        resume=resume,
        save_every=save_every,
        group=group,
        scaler=torch.amp.GradScaler(torch.device(device).type) if precision == "float16" else None,
    )
    return visual
