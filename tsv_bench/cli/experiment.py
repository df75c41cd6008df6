"""From a composed configuration to the objects that the rest of the package works with."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tsv_bench.checkpoint_sources import Source
from tsv_bench.cli.overrides import CONF
from tsv_bench.data import Split, Task, load_split
from tsv_bench.models import Backbone


def make_backbone(config: DictConfig) -> Backbone:
    """The backbone; read once however many methods a comparison has."""
    return _load_backbone(OmegaConf.to_yaml(config.backbone, resolve=True))


@cache
def _load_backbone(text: str) -> Backbone:
    return instantiate(OmegaConf.create(text).load)


def make_tasks(nodes: DictConfig) -> dict[str, Task]:
    """The tasks by name, in order. ValueError when there is none."""
    if not nodes:
        raise ValueError(
            "the suite has no tasks: name at least one, as in suite.tasks=[digits,signs]."
        )
    tasks = {
        name: _make_task(OmegaConf.to_yaml(node, resolve=True)) for name, node in nodes.items()
    }
    for name, task in tasks.items():
        if name != task.name:
            raise ValueError(f"the task under the key {name!r} calls itself {task.name!r}.")
    return tasks


@cache
def _make_task(text: str) -> Task:
    return instantiate(OmegaConf.create(text))


def suite_name(config: DictConfig) -> str:
    """The suite's name; another one when its tasks were changed on the command line."""
    tasks = list(config.suite.tasks)
    if tasks == named_tasks(config.suite.name):
        return config.suite.name
    if len(tasks) <= 3:
        return "+".join(tasks)
    digest = hashlib.sha256("+".join(tasks).encode()).hexdigest()[:6]
    return f"{len(tasks)}-tasks-{digest}"


def named_tasks(suite: str) -> list[str] | None:
    """The tasks that a suite's yaml lists; None when there is no such yaml in conf/."""
    path = CONF / "suite" / f"{suite}.yaml"
    if not path.exists():
        return None
    return next(
        list(entry["/task@tasks"])
        for entry in OmegaConf.load(path).defaults
        if "/task@tasks" in entry
    )


def make_source(config: DictConfig, device: str) -> Source:
    if not isinstance(config.seed, int):
        raise ValueError(f"seed={config.seed!r} is not a whole number.")
    node = config.checkpoints
    extra = {"device": device} if "finetuning" in node else {}
    return instantiate(node, **extra)


def make_loader(config: DictConfig, backbone: Backbone) -> Callable[[Task, str], Split]:
    """A function of task and split that gives the decoded images."""

    def load(task: Task, split: str) -> Split:
        return load_split(
            task,
            split,
            folder=Path(config.paths.data),
            image_size=backbone.image_size,
            to_pixels=backbone.to_pixels,
        )

    return load
