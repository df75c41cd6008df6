"""Fine-tuning a backbone's image tower on one task, under its frozen zero-shot head."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsv_bench.data import Split
from tsv_bench.models import devices, normalize
from tsv_bench.models.distributed import ALONE, Group
from tsv_bench.models.training import Recipe, batch_rows, part_of, step_generator, train

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """How a backbone is fine-tuned. The number of epochs is the task's.

    Two things differ from the reference. Images come from the cache of decoded pixels, resized and
    center-cropped as for evaluation, and are only moved by ``shift`` (0 for the paper's backbones).
    The reference draws a crop of 90 to 100% of the original image with an aspect ratio of 3:4 to
    4:3 each time. And an epoch ends without its last, incomplete batch, which the reference trains
    on. What the first changes in accuracy was not measured.
    """

    batch_size: int  # images of a step, in all parts and processes together
    rate: float  # peak learning rate of AdamW
    warmup: float | int  # linear warm-up; below 1 a share of the steps, else their number
    weight_decay: float
    clip: float  # largest norm of the gradient
    shift: int  # pixels by which training images are moved at most, wrapping around
    accumulate: int = 1  # parts of a batch, one after another: less memory, the same gradient
    precision: str = "float32"  # of the forward pass, by autocast; float16 scales the loss

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
        """Plain data without the fields that have their defaults.

        A hash of this is in a checkpoint's name. So a checkpoint from before a field existed is
        found as long as the field has its default.
        """
        named = {field.name: field.default for field in fields(self)}
        return {n: v for n, v in asdict(self).items() if v != named[n]}

    def recipe(self, epochs: int, num_images: int) -> Recipe:
        """Return the training of so many epochs on so many images, in steps."""
        batch_size = min(self.batch_size, num_images)
        return self.recipe_of_steps(epochs * (num_images // batch_size), num_images)

    def recipe_of_steps(self, steps: int, num_images: int) -> Recipe:
        """Return the training of so many steps on so many images."""
        warmup = round(self.warmup * steps) if self.warmup < 1 else self.warmup
        return Recipe(
            steps=steps,
            batch_size=min(self.batch_size, num_images),
            rate=self.rate,
            warmup_steps=min(warmup, steps),
            weight_decay=self.weight_decay,
            clip=self.clip,
        )


def in_parts_that_fit(
    run: Callable[[int], Result],
    batch_size: int,
    accumulate: int,
    device: str,
    group: Group = ALONE,
) -> tuple[Result, int]:
    """Call ``run`` with a number of parts of a batch, then with twice as many if memory runs out.

    Returns the result and the number of parts. Smaller parts are tried only in a single process: of
    several, one may run out of memory while the others wait for its gradients. Raises ValueError if
    the memory does not suffice.
    """
    parts = [accumulate]
    if group.size == 1 and 2 * accumulate <= batch_size:
        parts.append(2 * accumulate)
    parts_of = {batch_size // (number * group.size): number for number in parts}
    found, size = devices.with_smaller_batches(
        lambda size: run(parts_of[size]),
        list(parts_of),
        device,
        "train on",
        f"Set backbone.finetune.accumulate={2 * parts[-1]}: the same training, with fewer at a "
        f"time. Or end what else uses it, or use more GPUs with torchrun.",
    )
    return found, parts_of[size]


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
    first: int = 0,
) -> nn.Module:
    """Return a copy of the image tower, trained with cross-entropy under a frozen head.

    ``head`` is [classes, dim]. ``resume`` and ``save_every`` (seconds) are as in `train`. Batches
    do not depend on how many processes and parts share them. ``first`` is the number of batches
    that were taken before: the next ones are trained on. Raises ValueError if a batch has fewer
    images than there are parts.
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
        batch = first + step
        rows = batch_rows(len(split), recipe.batch_size, batch, seed)
        moved = torch.randint(-shift, shift + 1, (2,), generator=step_generator(seed + 1, batch))
        for part in range(group.rank, num_parts, group.size):
            own = part_of(rows, part, num_parts)
            images = normalize(devices.copy_async(split.images[own], device), visual)
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
