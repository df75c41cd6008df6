"""Where fine-tuned checkpoints come from; conf/checkpoints/ has one yaml for each source.

A source says of which ``generation`` its checkpoints are (see `Checkpoint`). Their layouts are told
by the files themselves, which are read where they lie. `Source` says what a source offers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from tsv_bench import hub
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.checkpoints.image_tower import image_tower
from tsv_bench.checkpoints.pickled_heads import pickled_by
from tsv_bench.data import Split, Task
from tsv_bench.models import Backbone
from tsv_bench.state_dicts.integrity import content_hash
from tsv_bench.state_dicts.state_dict import open_state_dict

GENERATIONS = ("original", "fixed", "other")


class Source(Protocol):
    folder: Path  # where it writes, if it does
    generation: str

    def needs(self, backbone_name: str, task: Task) -> list[hub.Need]:
        """What tsv-fetch has to bring."""

    def settings(self, backbone: Backbone, task: Task) -> dict[str, Any]:
        """Plain data that determine the weights, and the head where it comes from a file."""

    def needed(self, backbone: Backbone, tasks: Sequence[Task]) -> int:
        """Bytes still to be written."""

    def checkpoint(
        self, backbone: Backbone, task: Task, load: Callable[[str], Split]
    ) -> Checkpoint: ...

    def head(self, backbone: Backbone, task: Task) -> Tensor | None:
        """A head [classes, dim] that comes with the checkpoint; None: it is built from prompts."""


class FileSource:
    """What the sources have in common that only read files: each says the ``path`` of one."""

    def needs(self, backbone_name: str, task: Task) -> list[hub.Need]:
        return []

    def settings(self, backbone: Backbone, task: Task) -> dict[str, Any]:
        digest = content_hash(self.path(backbone.name, task))
        return {
            "backbone": backbone.fingerprint,
            "sha256": digest,
            "generation": self.generation,
        }

    def needed(self, backbone: Backbone, tasks: Sequence[Task]) -> int:
        return 0

    def checkpoint(
        self, backbone: Backbone, task: Task, load: Callable[[str], Split]
    ) -> Checkpoint:
        """The task's checkpoint. OSError when it is not here, ValueError when it is none."""
        path = self.path(backbone.name, task)
        try:
            state = open_state_dict(path)
            image_tower(state, backbone.pretrained)  # a foreign one is found before any is read
        except ValueError as error:
            whose = pickled_by(path)
            why = (
                f"it is a whole pickled module, as {whose} saves them: {error}" if whose else error
            )
            raise ValueError(f"the checkpoint of {task.name} at {path}: {why}") from error
        return Checkpoint(
            path=path, sha256=content_hash(path), generation=self.generation, scores=None
        )

    def head(self, backbone: Backbone, task: Task) -> Tensor | None:
        return None


@dataclass(frozen=True, kw_only=True)
class Folder(FileSource):
    """The user's own checkpoints: ``<folder>/<task>.safetensors``, .pt, .pth or .bin."""

    folder: Path
    generation: str

    def __post_init__(self) -> None:
        check_generation(self.generation)

    def path(self, backbone_name: str, task: Task) -> Path:
        path = Path(self.folder).expanduser() / f"{task.name}.safetensors"
        found = [p for s in (".safetensors", ".pt", ".pth", ".bin")
                 if (p := path.with_suffix(s)).exists()]  # fmt: skip
        if not found:
            raise FileNotFoundError(
                f"no checkpoint of {backbone_name} on {task.name} at {path}, nor one that ends in "
                f".pt, .pth or .bin. Put it there, or make one with: "
                f"tsv-finetune backbone={backbone_name} task={task.name}"
            )
        if len(found) > 1:
            raise ValueError(
                f"{path.parent} holds {' and '.join(p.name for p in found)}: which of them is the "
                f"checkpoint of {task.name}? Leave one there."
            )
        return found[0]


def check_generation(generation: str) -> None:
    if generation not in GENERATIONS:
        raise ValueError(
            f"checkpoints.generation={generation!r}: choose one of {', '.join(GENERATIONS)}."
        )


def existing(path: Path, what: str) -> Path:
    """The path, when it exists. FileNotFoundError that says what is there instead."""
    if path.exists():
        return path
    above = next(parent for parent in path.parents if parent.exists())
    names = sorted(p.name for p in above.iterdir()) if above.is_dir() else []
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise FileNotFoundError(
        f"no {what} at {path}. What there is in {above}: {shown or 'nothing'}. Put it there, or "
        f"choose another folder."
    )
