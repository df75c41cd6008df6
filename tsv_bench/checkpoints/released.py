"""Fine-tuned checkpoints that others released, and how they spell backbones and tasks."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from torch import Tensor

from tsv_bench import hub
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.checkpoints.pickled_heads import read_head
from tsv_bench.checkpoints.source import FileSource, check_generation, existing
from tsv_bench.data import Split, Task
from tsv_bench.models import Backbone
from tsv_bench.state_dicts.integrity import content_hash

log = logging.getLogger(__name__)

# Our names of backbones and tasks, and how others spell them. The tables are of what they released:
# a new task is added here only if one of them has a checkpoint of it.
BACKBONES = {"vit_b32": "ViT-B-32", "vit_b16": "ViT-B-16", "vit_l14": "ViT-L-14"}
TASKS = {  # task: (in the paper's folders, in the names of FusionBench's repositories)
    "cars": ("Cars", "stanford-cars"),
    "dtd": ("DTD", "dtd"),
    "eurosat": ("EuroSAT", "eurosat"),
    "gtsrb": ("GTSRB", "gtsrb"),
    "mnist": ("MNIST", "mnist"),
    "resisc45": ("RESISC45", "resisc45"),
    "svhn": ("SVHN", "svhn"),
    "sun397": ("SUN397", "sun397"),
    "stl10": ("STL10", "stl10"),
    "oxford_iiit_pet": ("OxfordIIITPet", "oxford-iiit-pet"),
    "flowers102": ("Flowers102", "oxford_flowers102"),
    "cifar100": ("CIFAR100", "cifar100"),
    "pcam": ("PCAM", "pcam"),
    "fer2013": ("FER2013", "fer2013"),
    "cifar10": ("CIFAR10", "cifar10"),
    "food101": ("Food101", "food101"),
    "fashion_mnist": ("FashionMNIST", "fashion_mnist"),
    "rendered_sst2": ("RenderedSST2", "rendered-sst2"),
    "emnist": ("EMNIST", "emnist_letters"),
    "kmnist": ("KMNIST", "kmnist"),
}
NAMES = {
    "paper": {task: names[0] for task, names in TASKS.items()},
    "fusion_bench": {task: names[1] for task, names in TASKS.items()},
}


class Released(FileSource):
    """A source that others released. It logs each of its caveats once, on first use."""

    about: str | None  # a caveat of all checkpoints
    remarks: Mapping[str, str]  # task: a caveat of its checkpoint

    def checkpoint(
        self, backbone: Backbone, task: Task, load: Callable[[str], Split]
    ) -> Checkpoint:
        found = super().checkpoint(backbone, task, load)
        if self.about:
            _say(self.about)
        if remark := self.remarks.get(task.name):
            _say(f"{task.name}: {remark}")
        return found


@dataclass(frozen=True, kw_only=True)
class Reference(Released):
    """A folder of the paper's code: ``<folder>/ViT-B-32/CarsVal/nonlinear_finetuned.pt``."""

    folder: Path
    generation: str
    heads: str  # "text": built from prompts; "file": read from the folder, head_CarsVal.pt
    remarks: Mapping[str, str] = field(default_factory=dict)
    about = None

    def __post_init__(self) -> None:
        check_generation(self.generation)
        if self.heads not in ("text", "file"):
            raise ValueError(
                f"checkpoints.heads={self.heads!r}: choose text (built from prompts) or file (as "
                f"they lie in {self.folder})."
            )

    def settings(self, backbone: Backbone, task: Task) -> dict[str, Any]:
        known = super().settings(backbone, task)
        if self.heads == "file":
            known["head"] = content_hash(self.head_path(backbone.name, task))
        return known

    def path(self, backbone_name: str, task: Task) -> Path:
        home = self._home(backbone_name)
        name = spelled(task.name, NAMES["paper"], "task", "checkpoints=reference")
        older = home / name / "finetuned.pt"
        path = home / f"{name}Val" / "nonlinear_finetuned.pt"
        if older.exists() and not path.exists():
            raise FileNotFoundError(
                f"no checkpoint of {backbone_name} on {task.name} at {path}. {older} is there, as "
                f"mlfoundations/task_vectors has it: another model, often a whole pickled module. "
                f"Save its state dict as {task.name}.pt and use checkpoints=folder."
            )
        return existing(path, f"checkpoint of {backbone_name} on {task.name}")

    def head_path(self, backbone_name: str, task: Task) -> Path:
        name = spelled(task.name, NAMES["paper"], "task", "checkpoints=reference")
        path = self._home(backbone_name) / f"head_{name}Val.pt"
        return existing(path, f"head of {task.name} (checkpoints.heads=text needs none)")

    def _home(self, backbone_name: str) -> Path:
        name = spelled(backbone_name, BACKBONES, "backbone", "checkpoints=reference")
        return Path(self.folder).expanduser() / name

    def head(self, backbone: Backbone, task: Task) -> Tensor | None:
        if self.heads == "text":
            return None
        path = self.head_path(backbone.name, task)
        head = read_head(path)
        pretrained = backbone.pretrained
        dim = pretrained["proj"].shape[1] if "proj" in pretrained else head.shape[1]
        if head.shape != (len(task.class_names), dim):
            raise ValueError(
                f"{path} is a head of {head.shape[0]} classes for {head.shape[1]} features; "
                f"{task.name} has {len(task.class_names)} classes and {backbone.label} {dim} "
                f"features. Is it of this task and backbone?"
            )
        return head


@dataclass(frozen=True, kw_only=True)
class Repository(Released):
    """Checkpoints on the hub, in one repository or in one for each; tsv-fetch fetches them.

    In ``repo`` and ``file``, {backbone} and {task} stand for the publisher's own names: those in
    ``backbones``, and those of TASKS that ``names`` chooses ("paper" or "fusion_bench"). ``repo``
    may be a folder with the same files.
    """

    repo: str
    file: str
    backbones: Mapping[str, str]
    names: str
    generation: str
    about: str
    remarks: Mapping[str, str] = field(default_factory=dict)
    num_bytes: Mapping[str, int] = field(default_factory=dict)  # of a file by backbone, about
    revision: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        check_generation(self.generation)
        if self.names not in NAMES:
            raise ValueError(f"checkpoints.names={self.names!r}: there are {', '.join(NAMES)}.")

    @property
    def folder(self) -> Path:
        """The folder of the hub's files. Nothing is written there."""
        return Path(constants.HF_HUB_CACHE)

    def needs(self, backbone_name: str, task: Task) -> list[hub.Need]:
        repo = self._filled(self.repo, backbone_name, task)
        if is_folder(repo):
            return []
        need = hub.Need(
            what=f"checkpoint of {task.name}",
            repo=repo,
            kind="model",
            patterns=(self._filled(self.file, backbone_name, task),),
            revision=self.revision,
            num_bytes=self.num_bytes.get(backbone_name),
            licence=self.licence,
        )
        return [need]

    def path(self, backbone_name: str, task: Task) -> Path:
        file = self._filled(self.file, backbone_name, task)
        for need in self.needs(backbone_name, task):
            return hub.require(need) / file
        folder = Path(self._filled(self.repo, backbone_name, task)).expanduser()
        return existing(folder / file, f"checkpoint of {backbone_name} on {task.name}")

    def _filled(self, template: str, backbone_name: str, task: Task) -> str:
        backbone = spelled(backbone_name, self.backbones, "backbone", self.repo)
        name = spelled(task.name, NAMES[self.names], "task", self.repo)
        return template.replace("{backbone}", backbone).replace("{task}", name)


SETTINGS = {"task": "suite.tasks=[...] or task=", "backbone": "backbone="}


def spelled(name: str, known: Mapping[str, str], kind: str, whose: str) -> str:
    """Return how others spell a backbone or task.

    Raises ValueError if ``whose`` checkpoints have none of that name.
    """
    if name not in known:
        raise ValueError(
            f"{whose} has no checkpoints of {kind} {name!r}; it has those of {', '.join(known)}. "
            f"Choose one of them with {SETTINGS[kind]}, or other checkpoints with checkpoints=."
        )
    return known[name]


def is_folder(repo: str) -> bool:
    """Return whether ``repo`` is a folder and not a repository of the hub."""
    return Path(repo).expanduser().is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", repo)


@cache  # once in a process
def _say(text: str) -> None:
    log.warning(text)
