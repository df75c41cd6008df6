"""Sources of fine-tuned checkpoints; conf/checkpoints/ has one yaml for each.

`Source` is what a source offers. It says of which ``generation`` its checkpoints are (see
`Checkpoint`). How their parameters are named is told from the files, which are read where they lie.
"""

from collections.abc import Callable, Mapping, Sequence
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
from tsv_bench.state_dicts.adapters.config import CONFIG_FILE
from tsv_bench.state_dicts.adapters.inputs import no_network
from tsv_bench.state_dicts.integrity import content_hash
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.wording import suggested

GENERATIONS = ("original", "fixed", "other")
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
NUM_SHOWN = 8  # files in a message


class Source(Protocol):
    """What the commands need of a source."""

    folder: Path  # where it writes, if it writes at all
    generation: str

    def needs(self, backbone_name: str, task: Task) -> list[hub.Need]:
        """Return what tsv-fetch has to fetch for a task."""

    def settings(self, backbone: Backbone, task: Task) -> dict[str, Any]:
        """Return plain data that determine the weights, and the head if it comes from a file."""

    def needed(self, backbone: Backbone, tasks: Sequence[Task]) -> int:
        """Return how many bytes are still to be written for these tasks."""

    def checkpoint(
        self, backbone: Backbone, task: Task, load: Callable[[str], Split]
    ) -> Checkpoint:
        """Return the task's checkpoint. ``load`` returns a split's data, to make a missing one."""

    def head(self, backbone: Backbone, task: Task) -> Tensor | None:
        """Return the head [classes, dim] that comes with the checkpoint; None: build it."""


def task_settings(
    source: Source, backbone: Backbone, tasks: Mapping[str, Task]
) -> dict[str, dict[str, Any]]:
    """Return task -> plain data of its images, its prompts and its checkpoint, as Runs have it."""
    return {
        name: {
            "data": task.fingerprint,
            "templates": list(task.templates),
            "checkpoint": source.settings(backbone, task),
        }
        for name, task in tasks.items()
    }


class FileSource:
    """A source that only reads files. A subclass says the ``path`` of each."""

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
        """Return the task's checkpoint.

        Raises OSError if it is not here, ValueError if it is not of this backbone.
        """
        path = self.path(backbone.name, task)
        try:
            state = open_state_dict(path)
            image_tower(state, backbone.pretrained)  # finds a foreign one before anything is read
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
    """The user's own checkpoints: ``<folder>/<task>`` with a suffix of SUFFIXES."""

    folder: Path
    generation: str

    def __post_init__(self) -> None:
        check_generation(self.generation)

    def path(self, backbone_name: str, task: Task) -> Path:
        """Return the task's file. Raises OSError if there is none, ValueError if there are two."""
        path = Path(self.folder).expanduser() / f"{task.name}.safetensors"
        found = [p for suffix in SUFFIXES if (p := path.with_suffix(suffix)).exists()]
        if not found and (path.with_suffix("") / CONFIG_FILE).is_file():
            raise no_network(path.with_suffix(""))
        if not found:
            choices = (f"backbone={backbone_name}", f"task={task.name}")
            make = suggested.command("tsv-finetune", *choices, without=["checkpoints"])
            raise FileNotFoundError(
                f"no checkpoint of {backbone_name} on {task.name} at {path}, nor one that ends in "
                f".pt, .pth or .bin. Put it there, or make one with: {make}"
            )
        if len(found) > 1:
            raise ValueError(
                f"{path.parent} holds {' and '.join(p.name for p in found)}: which of them is the "
                f"checkpoint of {task.name}? Leave one there."
            )
        return found[0]


def check_generation(generation: str) -> None:
    """Check a generation that the user chose. Raises ValueError if there is no such one."""
    if generation not in GENERATIONS:
        raise ValueError(
            f"checkpoints.generation={generation!r}: choose one of {', '.join(GENERATIONS)}."
        )


def existing(path: Path, what: str) -> Path:
    """Return the path if it exists. Raises FileNotFoundError that says what is there instead."""
    if path.exists():
        return path
    above = next(parent for parent in path.parents if parent.exists())
    names = sorted(p.name for p in above.iterdir()) if above.is_dir() else []
    shown = ", ".join(names[:NUM_SHOWN])
    if len(names) > NUM_SHOWN:
        shown += f" and {len(names) - NUM_SHOWN} more"
    raise FileNotFoundError(
        f"no {what} at {path}. What there is in {above}: {shown or 'nothing'}. Put it there, or "
        f"choose another folder."
    )
