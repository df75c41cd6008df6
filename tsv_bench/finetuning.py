"""Fine-tuning a backbone's image tower on one task, under its frozen zero-shot head."""

import copy
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor, nn

from tsv_bench import evaluation
from tsv_bench.checkpoints import Checkpoint, load_record, save_checkpoint
from tsv_bench.data import Split, Task
from tsv_bench.files import replace_atomically
from tsv_bench.models import Backbone, normalize, zero_shot_head
from tsv_bench.scores import Score
from tsv_bench.training import Recipe, batch_rows, step_generator, train

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """How a backbone is fine-tuned; the task says for how many epochs."""

    batch_size: int
    rate: float  # peak learning rate of AdamW
    warmup: float | int  # linear warm-up: a share of the steps below 1, else a number of steps
    weight_decay: float
    clip: float  # largest norm of the gradient
    shift: int  # training images are moved by up to so many pixels, wrapping around

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("shift", 0)):
            if not isinstance(value := getattr(self, name), int) or value < least:
                raise ValueError(
                    f"backbone.finetune.{name}={value!r} is not a whole number of at least {least}."
                )
        for name in ("rate", "warmup", "weight_decay", "clip"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"backbone.finetune.{name}={value!r} is not a number from 0 up.")

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


@dataclass(frozen=True, kw_only=True)
class FinetunedHere:
    """Checkpoints that are fine-tuned on demand and kept in a folder."""

    folder: Path
    finetuning: Finetuning
    seed: int
    device: str
    overwrite: bool = False
    save_every: float = 30.0  # seconds between two states to resume from
    generation = "finetune"

    def settings(self, backbone: Backbone, task: Task) -> dict[str, Any]:
        """All that determines the weights, for one machine and number of threads."""
        return {
            "backbone": backbone.fingerprint,
            "task": task.fingerprint,
            "prompts": task.prompts,
            "epochs": task.epochs,
            "finetuning": asdict(self.finetuning),
            "seed": self.seed,
        }

    def path(self, backbone: Backbone, task: Task) -> Path:
        settings = json.dumps(self.settings(backbone, task), sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return Path(self.folder) / backbone.name / f"{task.name}-{digest}.safetensors"

    def needed(self, backbone: Backbone, tasks: Sequence[Task]) -> int:
        """Bytes that missing checkpoints will take, with the state of the one at work.

        ValueError when one that is there is damaged.
        """
        size = sum(param.nbytes for param in backbone.pretrained.values())
        missing = [t for t in tasks if self.overwrite or not load_record(self.path(backbone, t))]
        return (len(missing) + 7) * size if missing else 0  # pretrained, two states with moments

    def checkpoint(
        self, backbone: Backbone, task: Task, load: Callable[[str], Split]
    ) -> Checkpoint:
        """The task's checkpoint: the one that is there, or a new one. ``load``: a split's data.

        Two processes that want the same one do not both make it: one waits for the other.
        """
        path = self.path(backbone, task)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            record = None if self.overwrite else load_record(path)
            if record is None:
                record = self.make(backbone, task, load, path)
                self.save_pretrained(backbone)
        scores = {split: Score(**score) for split, score in record["scores"].items()}
        return Checkpoint(
            path=path, sha256=record["sha256"], generation=self.generation, scores=scores
        )

    def save_pretrained(self, backbone: Backbone) -> None:
        """Write the image tower that fine-tuning starts from, for tsv-merge, unless it is there."""
        name = f"pretrained-{backbone.fingerprint[:8]}.safetensors"
        path = Path(self.folder) / backbone.name / name
        if not path.exists():
            state = {name: tensor.contiguous() for name, tensor in backbone.pretrained.items()}
            replace_atomically(path, lambda temporary: save_file(state, temporary))

    def make(self, backbone: Backbone, task: Task, load, path: Path) -> dict[str, Any]:
        """Fine-tune, measure, write; what a killed run has saved is taken up."""
        started = time.monotonic()
        resume = path.with_suffix(".resume")
        if self.overwrite:
            resume.unlink(missing_ok=True)
        head = zero_shot_head(backbone, task).to(self.device)
        train_split = load("train")
        recipe = self.finetuning.recipe(task.epochs, len(train_split))
        visual = finetune(
            backbone.visual,
            head,
            train_split,
            recipe,
            shift=self.finetuning.shift,
            seed=self.seed,
            label=f"fine-tune {task.label}",
            resume=resume,
            save_every=self.save_every,
            device=self.device,
        )
        if not all(tensor.isfinite().all() for tensor in visual.state_dict().values()):
            resume.unlink(missing_ok=True)
            raise ValueError(
                f"fine-tuning {task.name} diverged: its weights are no longer finite. Lower "
                f"backbone.finetune.rate (now {recipe.rate:g})."
            )
        scores = {
            split: asdict(
                evaluation.score(evaluation.correct_images(visual, head, load(split), self.device))
            )
            for split in ("val", "test")
        }
        record = {
            "settings": self.settings(backbone, task),
            "recipe": asdict(recipe),
            "scores": scores,
            "seconds": time.monotonic() - started,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        record = save_checkpoint(path, visual.state_dict(), record)
        resume.unlink(missing_ok=True)
        log.info(
            f"fine-tuned {task.label}: {100 * scores['test']['accuracy']:.1f}% on test, "
            f"{recipe.steps} steps in {record['seconds']:.0f} s"
        )
        return record


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
) -> nn.Module:
    """A copy of the image tower, all of it trained with cross-entropy under the frozen head."""
    visual = copy.deepcopy(visual).to(device).requires_grad_(True)

    def loss_at(step: int) -> Tensor:
        rows = batch_rows(len(split), recipe.batch_size, step, seed)
        moved = torch.randint(-shift, shift + 1, (2,), generator=step_generator(seed + 1, step))
        images = normalize(split.images[rows].to(device)).roll(moved.tolist(), dims=(2, 3))
        logits = F.normalize(visual(images), dim=-1) @ head.T
        return F.cross_entropy(logits, split.labels[rows].to(device))

    train(visual, loss_at, recipe, label=label, resume=resume, save_every=save_every)
    return visual
