"""What one cell of a plan takes: whether it is finished, what is made first, images to evaluate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path

from omegaconf import DictConfig

from tsv_bench import hub
from tsv_bench.benchmark.cells.cell import Cell
from tsv_bench.benchmark.runs import find_runs
from tsv_bench.cli.config import objects
from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.needs import needs_of
from tsv_bench.cli.config.tasks import make_tasks, suite_name, without_unseen
from tsv_bench.cli.sweep.asked import validation_is_asked
from tsv_bench.cli.typed.mistakes import message_of
from tsv_bench.cli.work.bench import find_finished, make_cell
from tsv_bench.cli.work.fetch import image_size
from tsv_bench.cli.work.machine import chosen_devices
from tsv_bench.data import SPLITS, Task, bytes_to_write
from tsv_bench.data.cache import in_files, pixel_path
from tsv_bench.data.task import Source
from tsv_bench.methods.method import Method
from tsv_bench.models.finetuning import Finetuning

SOURCES = "tsv_bench.data.sources"  # whose images are counted quickly


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One cell, and what it takes."""

    config: DictConfig
    swept: str  # its overrides that other cells have with other values
    method: Method
    suite: str
    num_tasks: int
    finished: Path | None = None
    problem: str | None = None  # why it cannot run
    lacking: tuple[hub.State, ...] = ()  # what is not fetched
    images: int | None = 0  # to evaluate, each time that one is; None: not known
    trainings: Mapping[Path, int] = field(default_factory=dict)  # checkpoint -> images of its steps
    pixels: Mapping[Path, int] = field(default_factory=dict)  # split to decode -> bytes
    asks_individual: bool = False  # is normalized by Runs of method=individual that are not there

    @property
    def backbone(self) -> str:
        return self.config.backbone.name

    @property
    def to_run(self) -> bool:
        return self.finished is None and self.problem is None


def planned(config: DictConfig, swept: str = "") -> Planned:
    """Return what a cell takes. Raises ValueError or OSError if its settings are wrong."""
    method, tasks = make_method(config), make_tasks(config.suite.tasks)
    merged, unseen = without_unseen(tasks, config.unseen)
    about = {
        "config": config,
        "swept": swept,
        "method": method,
        "suite": suite_name(config),
        "num_tasks": len(merged),
    }
    validates, num_corruptions = validation_is_asked(config), len(config.evaluation.corruptions)
    images = images_of(method, merged, unseen, num_corruptions, validates)
    states = [hub.state(need) for need in needs_of(config)]
    if lacking := tuple(state for state in states if not state.here):
        return Planned(**about, images=images, lacking=lacking, pixels=pixels_of(config, tasks, ()))
    try:
        cell = make_cell(config, chosen_devices(config.device))
        if not config.overwrite and (found := find_finished(cell)):
            if not validates or found[1].validation is not None:
                return Planned(**about, finished=found[0])
            images = total([num_images(task, "val") for task in merged.values()])
        trained = trainings_of(cell, objects.make_finetuning(config))
    except (ValueError, OSError) as error:  # as a folder without the checkpoints
        return Planned(**about, problem=message_of(error))
    return Planned(
        **about,
        images=images,
        trainings={path: count for path, (_, count) in trained.items()},
        pixels=pixels_of(config, tasks, [task for task, _ in trained.values()]),
        asks_individual=asks_individual(cell),
    )


def images_of(
    method: Method,
    tasks: Mapping[str, Task],
    unseen: Mapping[str, Task],
    num_corruptions: int,
    validates: bool = False,
) -> int | None:
    """Return how many images go through a network: validation for each candidate, and test.

    That of ``unseen`` tasks once, that of ``tasks`` once and under each corruption. ``validates``:
    a fixed alpha is evaluated on validation, too.
    """
    counts = {split: [num_images(task, split) for task in tasks.values()] for split in SPLITS}
    others = [num_images(task, "test") for task in unseen.values()]
    fixed = int(validates or method.name == "individual")
    searched = len(method.alphas) if len(method.alphas) > 1 else fixed
    if method.knob_is_open:
        searched += len(method.choice.candidates)
    often = [counts["val"]] * searched + [counts["test"]] * (1 + num_corruptions)
    return total([*chain.from_iterable(often), *others])


def total(counts: Sequence[int | None]) -> int | None:
    """Return the sum; None if one is not known."""
    return None if None in counts else sum(counts)


def num_images(task: Task, split: str) -> int | None:
    """Return the number of images of a split; None if a user's own source does not tell it."""
    source = task.source
    if task.sizes is not None:
        return task.sizes[split]
    if hasattr(source, "num_images"):
        return source.num_images(split)
    keywords, function = getattr(source, "keywords", {}), getattr(source, "func", source)
    if "num_images" in keywords:
        return keywords["num_images"].get(split)
    if getattr(function, "__module__", "") == SOURCES:
        return counted(source, split)
    return None


@cache
def counted(source: Source, split: str) -> int:
    return sum(1 for _ in source(split))


def trainings_of(cell: Cell, finetuning: Finetuning | None) -> dict[Path, tuple[Task, int]]:
    """Return checkpoint -> its task and the images of all its steps, of those that are missing."""
    found = {}
    for task in cell.all_tasks.values() if hasattr(cell.source, "finetuning") else ():
        path = cell.source.path(cell.backbone, task)
        if cell.source.overwrite or not (path.exists() and path.with_suffix(".json").exists()):
            recipe = finetuning.recipe(task.epochs, num_images(task, "train") or 1)
            found[path] = (task, recipe.steps * recipe.batch_size)
    return found


def pixels_of(
    config: DictConfig, tasks: Mapping[str, Task], trained: Sequence[Task]
) -> dict[Path, int]:
    """Return split -> bytes of what is to be decoded; training images of ``trained`` tasks too.

    A drawn task counts as a whole.
    """
    size = image_size(config.backbone.load.get("architecture", ""))
    place = {"folder": Path(config.paths.data), "image_size": size}
    found = {}
    for task in tasks.values() if size else ():
        splits = SPLITS if task in trained else ("val", "test")
        for part in [[split] for split in splits] if in_files(task) else [splits]:
            if num_bytes := bytes_to_write(task, part, **place):
                found[pixel_path(task, part[-1], **place)] = num_bytes
    return found


def asks_individual(cell: Cell) -> bool:
    """Return whether accuracies of the tasks' own models are needed and no Run has them."""
    own = cell.normalizer == "own" and cell.method.name != "individual"
    if not own or hasattr(cell.source, "finetuning"):
        return False
    same = {"backbone": cell.backbone.name, "suite": cell.suite, "seed": cell.seed}
    return not find_runs(cell.folder, method="individual", **same)
