"""Checkpoints that are fine-tuned here, on demand."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tsv_bench.checkpoints.checkpoint import Checkpoint, load_record, save_checkpoint
from tsv_bench.data import Split, Task
from tsv_bench.files import leased, replace_atomically
from tsv_bench.models import Backbone, accuracy, devices, zero_shot_head
from tsv_bench.models.distributed import Group, join_group
from tsv_bench.models.finetuning import Finetuning, finetune, in_parts_that_fit
from tsv_bench.scores import Score, score

log = logging.getLogger(__name__)

# Files of an image tower's size that one training writes beside its checkpoint: the pretrained
# tower, and two states to resume from, each with weights and the two moments of AdamW.
BESIDE = 1 + 2 * 3


@dataclass(frozen=True, kw_only=True)
class OnDemand:
    """A source that fine-tunes missing checkpoints and keeps them in a folder."""

    folder: Path
    finetuning: Finetuning
    seed: int
    device: str
    overwrite: bool = False
    save_every: float = 30.0  # seconds between two states to resume from
    generation = "finetune"

    def settings(self, backbone: Backbone, task: Task) -> dict[str, Any]:
        """Return what determines the weights, on a given machine with as many threads."""
        return {
            "backbone": backbone.fingerprint,
            "task": task.fingerprint,
            "prompts": task.prompts,
            "epochs": task.epochs,
            "finetuning": self.finetuning.settings,
            "seed": self.seed,
        }

    def head(self, backbone: Backbone, task: Task) -> Tensor | None:
        """Return None: heads are built from prompts, as in training."""
        return None

    def path(self, backbone: Backbone, task: Task) -> Path:
        """Return where the task's checkpoint is, or will be. The name has a hash of `settings`."""
        settings = json.dumps(self.settings(backbone, task), sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return Path(self.folder) / backbone.name / f"{task.name}-{digest}.safetensors"

    def needed(self, backbone: Backbone, tasks: Sequence[Task]) -> int:
        """Return how many bytes are still to be written, with what a training needs meanwhile.

        Raises ValueError if one of the checkpoints is damaged.
        """
        size = sum(param.nbytes for param in backbone.pretrained.values())
        missing = [t for t in tasks if self.overwrite or not load_record(self.path(backbone, t))]
        return (len(missing) + BESIDE) * size if missing else 0

    def checkpoint(
        self, backbone: Backbone, task: Task, load: Callable[[str], Split]
    ) -> Checkpoint:
        """Return the task's checkpoint, and fine-tune it first if it is missing.

        ``load`` returns a split's data. If two processes want the same checkpoint, one waits for
        the other. Raises ValueError if the checkpoint is damaged or its training diverges.
        """
        path = self.path(backbone, task)
        group = join_group(self.device)
        record = self._finished(path) if group.is_main else None
        # Under torchrun the main process holds the lease and tells the others what it found.
        with leased(path) if group.is_main and not record else nullcontext():
            if group.is_main and not record:
                record = self._finished(path)  # another process may have made it meanwhile
            if (record := group.broadcast(record)) is None:
                record = self.make(backbone, task, load, path, group)
        scores = {split: Score(**score) for split, score in record["scores"].items()}
        return Checkpoint(
            path=path, sha256=record["sha256"], generation=self.generation, scores=scores
        )

    def _finished(self, path: Path) -> dict[str, Any] | None:
        """Return the record of a checkpoint that is there and wanted."""
        record = None if self.overwrite else load_record(path)
        if record:  # a kill may have come before this was removed
            with suppress(OSError):
                path.with_suffix(".resume").unlink()
        return record

    def save_pretrained(self, backbone: Backbone) -> None:
        """Write the pretrained image tower, which tsv-merge needs, unless it is there."""
        name = f"pretrained-{backbone.fingerprint[:8]}.safetensors"
        path = Path(self.folder) / backbone.name / name
        if not path.exists():
            state = {name: tensor.contiguous() for name, tensor in backbone.pretrained.items()}
            replace_atomically(path, lambda temporary: save_file(state, temporary))

    def make(
        self,
        backbone: Backbone,
        task: Task,
        load: Callable[[str], Split],
        path: Path,
        group: Group,
    ) -> dict[str, Any]:
        """Fine-tune a checkpoint, evaluate and write it; return its record.

        A training that was killed is continued. Raises ValueError if the weights diverge.
        """
        started = time.monotonic()
        resume = path.with_suffix(".resume")
        if self.overwrite and group.is_main:
            resume.unlink(missing_ok=True)
        group.broadcast(None)  # the others wait: from here on they read the state to resume from
        head = zero_shot_head(backbone, task).to(self.device)
        train_split = load("train")
        recipe = self.finetuning.recipe(task.epochs, len(train_split))
        visual, accumulate = in_parts_that_fit(
            lambda accumulate: finetune(
                backbone.visual,
                head,
                train_split,
                recipe,
                shift=self.finetuning.shift,
                accumulate=accumulate,
                precision=self.finetuning.precision,
                seed=self.seed,
                label=f"fine-tune {task.label}",
                resume=resume,
                save_every=self.save_every,
                device=self.device,
                group=group,
            ),
            recipe.batch_size,
            self.finetuning.accumulate,
            self.device,
            group,
        )
        if not all(tensor.isfinite().all() for tensor in visual.state_dict().values()):
            if group.is_main:
                resume.unlink(missing_ok=True)
            raise ValueError(
                f"fine-tuning {task.name} diverged: its weights are no longer finite. Lower "
                f"backbone.finetune.rate (now {recipe.rate:g})."
            )
        record = None
        if group.is_main:
            record = self.measure(visual, head, load)
            record = {
                "settings": self.settings(backbone, task),
                "recipe": asdict(recipe),
                **record,
                "seconds": time.monotonic() - started,
                "threads": torch.get_num_threads(),
                "processes": group.size,
                "accumulate": accumulate,
                "torch": torch.__version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            self.save_pretrained(backbone)  # first: a finished checkpoint is not made again
            record = save_checkpoint(path, visual.state_dict(), record)
            resume.unlink(missing_ok=True)
            log.info(
                f"fine-tuned {task.label}: {100 * record['scores']['test']['accuracy']:.1f}% on "
                f"test, {recipe.steps} steps in {record['seconds']:.0f} s"
            )
        return group.broadcast(record)

    def measure(
        self, visual: nn.Module, head: Tensor, load: Callable[[str], Split]
    ) -> dict[str, Any]:
        """Return the scores on val and test, and their precision, for the record."""
        scores = {}
        for split in ("val", "test"):
            correct = accuracy.correct_images(visual, head, load(split), self.device)
            scores[split] = asdict(score(correct))
        return {"scores": scores, "scores_in": devices.chosen_precision(None, self.device)}
