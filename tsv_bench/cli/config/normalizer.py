"""The accuracies that a run's are divided by, as ``normalizer`` in the configuration says."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from tsv_bench.benchmark import published
from tsv_bench.benchmark.normalizer import find_normalizer, serves_own_models
from tsv_bench.data.task import Task
from tsv_bench.wording import suggested

if TYPE_CHECKING:  # they take torch
    from tsv_bench.benchmark.cells.cell import Cell
    from tsv_bench.benchmark.evaluate import Accuracies
    from tsv_bench.checkpoints.checkpoint import Checkpoint

CHOICES = ("own", "published")


def check_normalizer(config: DictConfig, tasks: Mapping[str, Task]) -> None:
    """Check that there is such a normalizer, and that a published one knows these tasks.

    Raises ValueError if not.
    """
    if config.normalizer not in CHOICES:
        raise ValueError(f"normalizer={config.normalizer!r} is not one of {', '.join(CHOICES)}.")
    if config.normalizer == "published":
        published.normalizer(config.backbone.name, tasks)


def make_normalizer(
    config: DictConfig,
    cell: "Cell",
    checkpoints: "Mapping[str, Checkpoint]",
    validates: bool = False,
) -> "tuple[Accuracies | None, str]":
    """Return the normalizer and where it is from; None: the cell's own accuracies.

    A task's own model was evaluated when it was fine-tuned here, or by method=individual. Raises
    ValueError that says how to make it if it was not. ``validates``: the chosen alpha is evaluated
    on validation in any case.
    """
    backbone, tasks, method = cell.backbone, cell.all_tasks, cell.method
    if config.normalizer == "published":
        return published.normalizer(backbone.name, tasks), published.normalizer_source()
    generations = ", ".join(sorted({c.generation for c in checkpoints.values()}))
    source = f"each task's own checkpoint ({generations}), same test images"
    if serves_own_models(method):
        return None, source
    settings = cell.settings
    if cell.unseen:
        settings = settings | {"tasks": settings["tasks"] | settings["unseen"]}
    scores = {name: c.scores for name, c in checkpoints.items() if c.scores}
    if len(scores) < len(tasks):
        scores |= find_normalizer(
            Path(config.paths.runs),
            backbone=backbone.name,
            checkpoints={name: c.sha256 for name, c in checkpoints.items()}
            | {"pretrained": backbone.fingerprint},
            data={name: task.fingerprint for name, task in tasks.items()},
            variants={name: task.variant for name, task in tasks.items() if task.variant},
            settings=settings,
        )
    # Unseen tasks choose nothing.
    chosen = method.compares_means or validates
    wanted = ({"val": cell.tasks} if chosen else {}) | {"test": tasks}
    lacking = [
        task
        for task in tasks
        if any(task in those and s not in scores.get(task, {}) for s, those in wanted.items())
    ]
    if lacking:
        make = suggested.command("tsv-bench", "method=individual")
        raise ValueError(
            f"accuracies of {method.label} cannot be normalized: no Run in {config.paths.runs} "
            f"says how good the fine-tuned models of {', '.join(lacking)} are on "
            f"{' and '.join(wanted)}. Make it with: {make}"
            f"{_or_published(backbone.name, tasks)}"
        )
    return {s: {t: scores[t][s].accuracy for t in those} for s, those in wanted.items()}, source


def _or_published(backbone: str, tasks: Mapping[str, Task]) -> str:
    try:
        published.normalizer(backbone, tasks)
    except ValueError:
        return ""
    return "\nOr divide by what the paper's authors published of their models: normalizer=published"
