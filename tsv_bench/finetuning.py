"""Fine-tuning a backbone's image tower on one task, under its frozen zero-shot head."""

import copy
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
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
from tsv_bench.distributed import ALONE, Processes, processes
from tsv_bench.files import replace_atomically
from tsv_bench.models import Backbone, normalize, zero_shot_head
from tsv_bench.scores import Score
from tsv_bench.training import Recipe, batch_rows, part_of, step_generator, train

log = logging.getLogger(__name__)


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
        evaluation.check_precision(self.precision, "backbone.finetune.precision")
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
            "finetuning": self.finetuning.settings,
            "seed": self.seed,
        }

    def head(self, backbone: Backbone, task: Task) -> Tensor | None:
        return None  # built from prompts, as in training

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
        team = processes(self.device)
        # Under torchrun the first process holds the lock and says what it found; no other asks.
        if team.first:
            path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")) if team.first else nullcontext():
            record = None
            if team.first and not self.overwrite:
                record = load_record(path)
            if (record := team.tell(record)) is None:
                record = self.make(backbone, task, load, path, team)
                if team.first:
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

    def make(
        self, backbone: Backbone, task: Task, load, path: Path, team: Processes
    ) -> dict[str, Any]:
        """Fine-tune, measure, write; what a killed run has saved is taken up."""
        started = time.monotonic()
        resume = path.with_suffix(".resume")
        if self.overwrite and team.first:
            resume.unlink(missing_ok=True)
        team.tell(None)  # the others look for it from here on
        head = zero_shot_head(backbone, task).to(self.device)
        train_split = load("train")
        recipe = self.finetuning.recipe(task.epochs, len(train_split))
        # Of several processes one may run out of memory while the others wait for its gradient:
        # only one alone can try again.
        parts = [accumulate := self.finetuning.accumulate]
        if team.count == 1 and 2 * accumulate <= recipe.batch_size:
            parts.append(2 * accumulate)
        parts_of = {recipe.batch_size // (number * team.count): number for number in parts}
        sizes = list(parts_of)
        visual = evaluation.that_fits(
            lambda size: finetune(
                backbone.visual,
                head,
                train_split,
                recipe,
                shift=self.finetuning.shift,
                accumulate=parts_of[size],
                precision=self.finetuning.precision,
                seed=self.seed,
                label=f"fine-tune {task.label}",
                resume=resume,
                save_every=self.save_every,
                device=self.device,
                team=team,
            ),
            sizes,
            self.device,
            "train on",
            f"Set backbone.finetune.accumulate={2 * parts[-1]}: the same training, with fewer at "
            f"a time. Or end what else uses it, or use more GPUs with torchrun.",
        )
        if not all(tensor.isfinite().all() for tensor in visual.state_dict().values()):
            if team.first:
                resume.unlink(missing_ok=True)
            raise ValueError(
                f"fine-tuning {task.name} diverged: its weights are no longer finite. Lower "
                f"backbone.finetune.rate (now {recipe.rate:g})."
            )
        record = None
        if team.first:
            record = self.measure(visual, head, load)
            record = {
                "settings": self.settings(backbone, task),
                "recipe": asdict(recipe),
                **record,
                "seconds": time.monotonic() - started,
                "threads": torch.get_num_threads(),
                "processes": team.count,
                "accumulate": parts_of[sizes[0]],
                "torch": torch.__version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            record = save_checkpoint(path, visual.state_dict(), record)
            resume.unlink(missing_ok=True)
            log.info(
                f"fine-tuned {task.label}: {100 * record['scores']['test']['accuracy']:.1f}% on "
                f"test, {recipe.steps} steps in {record['seconds']:.0f} s"
            )
        return team.tell(record)

    def measure(
        self, visual: nn.Module, head: Tensor, load: Callable[[str], Split]
    ) -> dict[str, Any]:
        """The accuracy after training, for the record."""
        scores = {}
        for split in ("val", "test"):
            correct = evaluation.correct_images(visual, head, load(split), self.device)
            scores[split] = asdict(evaluation.score(correct))
        return {"scores": scores, "scores_in": evaluation.chosen_precision(None, self.device)}


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
    team: Processes = ALONE,
) -> nn.Module:
    """A copy of the image tower, all of it trained with cross-entropy under the frozen head.

    Every batch is the same however many processes and parts share it. ValueError when it has fewer
    images than these.
    """
    num_parts = accumulate * team.count
    if recipe.batch_size < num_parts:
        raise ValueError(
            f"a batch of {recipe.batch_size} images cannot be shared by {team.count} processes in "
            f"{accumulate} parts each. Lower backbone.finetune.accumulate, or start fewer."
        )
    visual = copy.deepcopy(visual).to(device).requires_grad_(True)
    cast = evaluation.autocast(precision, device)

    def loss_at(step: int) -> Iterator[Tensor]:
        rows = batch_rows(len(split), recipe.batch_size, step, seed)
        moved = torch.randint(-shift, shift + 1, (2,), generator=step_generator(seed + 1, step))
        for part in range(team.rank, num_parts, team.count):
            own = part_of(rows, part, num_parts)
            images = normalize(evaluation.to_device(split.images[own], device))
            labels = evaluation.to_device(split.labels[own], device)
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
        processes=team,
        scaler=torch.amp.GradScaler(torch.device(device).type) if precision == "float16" else None,
    )
    return visual
