"""About how long a cell takes: by earlier Runs on such a machine, else by a short measurement."""

import json
import time
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import torch
from omegaconf import DictConfig

from tsv_bench import provenance
from tsv_bench.benchmark.runs import Run, read_runs
from tsv_bench.cli.config import objects
from tsv_bench.cli.plan.cells import Planned
from tsv_bench.data import Split
from tsv_bench.models.accuracy import correct_images

# Stages of a Run whose time goes with images.
BY_IMAGES = ("alpha", "knobs", "test", "unseen", "corrupted")
NOT_AGAIN = ("data", "checkpoints")  # stages that are preparation
MEASURED = 0.5  # seconds, at least
BACKWARD = 3.5  # forward passes that an image takes in training; a guess: backward takes about two


class Seconds:
    """Estimates for the cells of a plan on some devices, over which evaluation is spread."""

    def __init__(self, runs: Path, devices: Sequence[str]) -> None:
        self.devices, self.folder = devices, Path(runs)

    @cached_property
    def earlier(self) -> list[Run]:
        """The Runs that were made on such a machine, oldest first."""
        here = provenance.machine(",".join(self.devices))
        found = [run for _, run in read_runs(sorted(self.folder.glob("*/*/*-*.json")))]
        return sorted((run for run in found if run.machine == here), key=lambda run: run.created)

    def of(self, cell: Planned) -> tuple[float | None, str]:
        """Return the seconds of a cell without its preparation, and by what they are known."""
        same = [run for run in self.earlier if run.backbone == cell.backbone]
        own = [run for run in same if run.method == cell.method.name]
        if cell.images is None:
            return None, ""
        if own:
            run = min(reversed(own), key=lambda run: abs(len(run.tasks) - cell.num_tasks))
            by_images = sum(run.seconds.get(stage, 0) for stage in BY_IMAGES)
            rest = sum(s for n, s in run.seconds.items() if n not in (*BY_IMAGES, *NOT_AGAIN))
            tasks = cell.num_tasks / len(run.tasks)
            # A Run does not say on how many images the value of a knob was chosen.
            images = tasks if run.task_knobs else cell.images / max(images_of_run(run), 1)
            return by_images * images + rest * tasks, "an earlier Run"
        if counted := [run for run in same if not run.task_knobs]:
            rate = sum(map(images_of_run, counted)) / max(sum(map(evaluating, counted)), 1e-9)
            return cell.images / rate, "Runs of other methods (without merging)"
        if cell.lacking:
            return None, ""
        rate = len(self.devices) * self.rate(cell.config)
        return cell.images / rate, "a measurement (without merging)"

    def training(self, cell: Planned, path: Path) -> float | None:
        """Return the seconds of making a checkpoint, by others of the backbone if there are any."""
        if known := trained_images_a_second(path.parent):
            return cell.trainings[path] / known
        return BACKWARD * cell.trainings[path] / self.rate(cell.config)

    def rate(self, config: DictConfig) -> float:
        """Return images a second through the backbone's image tower on one device, measured."""
        backbone = objects.make_backbone(config)
        return measured_rate(backbone, self.devices[0], config.evaluation.precision)


@cache
def measured_rate(backbone, device: str, precision: str | None) -> float:
    """Return images a second, of images of noise."""
    size, dim = backbone.image_size, backbone.visual.output_dim
    noise = torch.randint(256, (32, 3, size, size), dtype=torch.uint8)
    split = Split(noise, torch.zeros(len(noise), dtype=torch.int64))
    head = torch.ones(2, dim, device=device)
    visual = backbone.visual.to(device)
    correct_images(visual, head, split, device, precision=precision)  # warms up
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < MEASURED:
        correct_images(visual, head, split, device, precision=precision)
        count += len(split)
    return count / passed


@cache
def trained_images_a_second(folder: Path) -> float | None:
    """Return how many images a second the trainings of a folder's checkpoints took, or None."""
    images = seconds = 0.0
    for path in folder.glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            images += record["recipe"]["steps"] * record["recipe"]["batch_size"]
            seconds += record["seconds"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # none of ours
    return images / seconds if seconds else None


def images_of_run(run: Run) -> int:
    """Return how many images the Run has evaluated, each time that one was."""
    test, val = (sum(score.total for score in scores.values()) for scores in (run.scores, run.val))
    return test + val * max(len(run.alpha_curve), 1)


def evaluating(run: Run) -> float:
    return sum(run.seconds.get(stage, 0) for stage in BY_IMAGES)


def readable(seconds: Sequence[float | None]) -> str:
    """Return a sum of seconds as people write it: "40 s", "12 min", "3.5 h"; "?" if not known."""
    if None in seconds:
        return "?"
    total = sum(seconds)
    if total < 90:
        return f"{max(round(total), 1)} s"
    return f"{total / 60:.0f} min" if total < 90 * 60 else f"{total / 3600:.1f} h"
