"""Fine-tuning for a method: the backbone's recipe, on the images that the method sees."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from tsv_bench.data import Split
from tsv_bench.models.finetuning import Finetuning, finetune, in_parts_that_fit
from tsv_bench.state_dicts.steps.unfinished import Unfinished

SAVE_EVERY = 30.0  # seconds between two states to resume from


class Rows:
    """Some images of a split, read when they are asked for: a split may not fit the memory."""

    def __init__(self, images: Tensor, rows: Tensor) -> None:
        self._images, self._rows = images, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self._images[self._rows[index]]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the backbone is fine-tuned, and for how long on each task."""

    finetuning: Finetuning
    epochs: Mapping[str, int]  # task -> epochs
    seed: int
    device: str
    unfinished: Unfinished

    def num_steps(
        self, task: str, num_images: int, epochs: int | None, batch_size: int | None
    ) -> int:
        """Return the steps of so many epochs; None: of the task's own fine-tuning."""
        finetuning = self._changed({} if batch_size is None else {"batch_size": batch_size})
        epochs = self.epochs[task] if epochs is None else epochs
        return finetuning.recipe(epochs, num_images).steps

    def fine_tune(
        self,
        visual: nn.Module,
        weights: Mapping[str, Tensor],
        head: Tensor,
        split: Split,
        *,
        steps: int,
        first: int,
        name: str,
        constant: bool,
        changes: Mapping[str, Any],
    ) -> tuple[dict[str, Tensor], int]:
        """Return the weights after so many steps from ``weights``, and the images that passed.

        A process that was killed goes on from the state under ``name``. ``constant``: the peak rate
        in every step, in place of a warm-up and a cosine over these steps.
        """
        finetuning = self._changed(changes)
        recipe = finetuning.recipe_of_steps(steps, len(split))
        if constant:
            recipe = replace(recipe, warmup_steps=0, final_rate=1.0)
        start = copy.deepcopy(visual)
        start.load_state_dict(weights, assign=True)  # no second copy of the weights
        resume = self.unfinished.resume(name)
        trained, _ = in_parts_that_fit(
            lambda accumulate: finetune(
                start,
                head,
                split,
                recipe,
                shift=finetuning.shift,
                accumulate=accumulate,
                precision=finetuning.precision,
                seed=self.seed,
                label=f"fine-tune {name}",
                resume=resume,
                save_every=SAVE_EVERY,
                device=self.device,
                first=first,
            ),
            recipe.batch_size,
            finetuning.accumulate,
            self.device,
        )
        resume.unlink(missing_ok=True)
        return trained.state_dict(), steps * recipe.batch_size

    def _changed(self, changes: Mapping[str, Any]) -> Finetuning:
        return replace(self.finetuning, **changes)
