"""The objects that a composed configuration describes."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tsv_bench.benchmark.alphas import check_patience
from tsv_bench.benchmark.evaluator import Evaluation
from tsv_bench.checkpoints.source import Source
from tsv_bench.cli.config.tasks import check_seed
from tsv_bench.data import Split, Task, bytes_to_write, check_source, load_split
from tsv_bench.files import check_room
from tsv_bench.models import Backbone, zero_shot_heads
from tsv_bench.models.backbone import Named
from tsv_bench.models.devices import batch_sizes, chosen_precision
from tsv_bench.models.finetuning import Finetuning
from tsv_bench.report.tracking import Tracker

LOADERS = ("tsv_bench.models.load_clip", "tsv_bench.models.load_mini")
SOURCES = tuple(f"tsv_bench.checkpoints.{file}" for file in ("on_demand", "source", "released"))


def make_tracker(config: DictConfig) -> Tracker:
    """Return the tracker. W&B gets the chosen experiment, unless the tracker's yaml names one."""
    node = config.tracker
    chosen = HydraConfig.get().runtime.choices.get("experiment")
    named = "experiment" not in node or node.experiment is not None
    return instantiate(node, **({} if named else {"experiment": chosen}))


def name_backbone(config: DictConfig) -> Named:
    """Return the backbone's name and hash without building it, if the configuration has the hash.

    Else the backbone. Only our own loaders compare the weights with this hash, and only our own
    sources of checkpoints ask for no more.
    """
    load = config.backbone.load
    targets = {load._target_, config.checkpoints._target_.rpartition(".")[0]}
    if not load.get("sha256") or not targets <= {*LOADERS, *SOURCES}:
        return make_backbone(config)
    return Named(name=load.name, label=load.label, fingerprint=load.sha256)


def make_backbone(config: DictConfig) -> Backbone:
    """Return the backbone. The jobs of a comparison share one; its yaml, resolved, is the key."""
    return _load_backbone(OmegaConf.to_yaml(config.backbone, resolve=True))


@cache
def _load_backbone(text: str) -> Backbone:
    return instantiate(OmegaConf.create(text).load)


def make_finetuning(config: DictConfig) -> Finetuning | None:
    """Return how the backbone is fine-tuned, or None if its yaml does not say."""
    node = config.backbone.get("finetune")
    return instantiate(node) if node else None


def make_source(config: DictConfig, device: str) -> Source:
    """Return the source of checkpoints. Raises ValueError if the seed is no whole number."""
    check_seed(config)
    node = config.checkpoints
    extra = {"device": device} if "finetuning" in node else {}
    return instantiate(node, **extra)


def check_data(
    config: DictConfig,
    backbone: Backbone,
    tasks: Mapping[str, Task],
    splits: Mapping[str, Sequence[str]],
) -> None:
    """Check the data that are still to be decoded, and the room for them.

    ``splits`` are those of each task. Raises ValueError or OSError that says what is wrong.
    """
    place = _place(config, backbone)
    room = sum(bytes_to_write(task, splits[name], **place) for name, task in tasks.items())
    if room:  # a folder with all that is needed may be one for reading only
        check_room(Path(config.paths.data), room, "paths.data=")
    for name, task in tasks.items():
        check_source(task, splits[name], **place)


def make_heads(
    config: DictConfig, backbone: Backbone, tasks: Mapping[str, Task], source: Source
) -> dict[str, Tensor]:
    """Return each task's head: the one that came with its checkpoint, else built from prompts."""
    given = {name: source.head(backbone, task) for name, task in tasks.items()}
    rest = {name: task for name, task in tasks.items() if given[name] is None}
    return given | zero_shot_heads(backbone, rest, Path(config.paths.heads))


def make_evaluation(config: DictConfig, devices: Sequence[str]) -> Evaluation:
    """Return the evaluation's settings. Raises ValueError if one is out of range."""
    batch_size, precision, patience = (
        config.evaluation[name] for name in ("batch_size", "precision", "patience")
    )
    batch_sizes(batch_size, devices[0])
    check_patience(patience)
    precision = chosen_precision(precision, devices[0])
    return Evaluation(tuple(devices), batch_size, precision, patience)


def make_loader(config: DictConfig, backbone: Backbone) -> Callable[[Task, str], Split]:
    """Return a function of task and split that returns the decoded images."""

    def load(task: Task, split: str) -> Split:
        return load_split(task, split, to_pixels=backbone.to_pixels, **_place(config, backbone))

    return load


def _place(config: DictConfig, backbone: Backbone) -> dict[str, Any]:
    """Return what decides where decoded images lie, as arguments of `load_split`."""
    return {
        "folder": Path(config.paths.data),
        "image_size": backbone.image_size,
        "geometry": backbone.geometry,
    }
