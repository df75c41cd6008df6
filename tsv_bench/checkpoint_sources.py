"""Where fine-tuned checkpoints come from; conf/checkpoints/ has one yaml for each source.

A source has ``generation``, ``settings(backbone, task)`` (plain data that determine the weights),
``needed(backbone, tasks)`` (bytes still to be written) and ``checkpoint(backbone, task, load)``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tsv_bench.checkpoints import Checkpoint
from tsv_bench.data import Split, Task
from tsv_bench.files import sha256
from tsv_bench.models import Backbone


class Source(Protocol):
    folder: Path
    generation: str

    def settings(self, backbone: Backbone, task: Task) -> dict[str, Any]: ...

    def needed(self, backbone: Backbone, tasks: Sequence[Task]) -> int: ...

    def checkpoint(
        self, backbone: Backbone, task: Task, load: Callable[[str], Split]
    ) -> Checkpoint: ...


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The user's own checkpoints: ``<folder>/<task>.safetensors``."""

    folder: Path
    generation = "other"

    def settings(self, backbone: Backbone, task: Task) -> dict[str, Any]:
        return {"backbone": backbone.fingerprint, "sha256": sha256(self.path(backbone, task))}

    def needed(self, backbone: Backbone, tasks: Sequence[Task]) -> int:
        return 0

    def path(self, backbone: Backbone, task: Task) -> Path:
        path = Path(self.folder) / f"{task.name}.safetensors"
        if not path.exists():
            raise FileNotFoundError(
                f"no checkpoint of {backbone.name} on {task.name} at {path}. Put it there, or make "
                f"one with: tsv-finetune backbone={backbone.name} task={task.name}"
            )
        return path

    def checkpoint(
        self, backbone: Backbone, task: Task, load: Callable[[str], Split]
    ) -> Checkpoint:
        path = self.path(backbone, task)
        return Checkpoint(path=path, sha256=sha256(path), generation=self.generation, scores=None)
