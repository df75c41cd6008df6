"""Tests on corrupted images of the merged tasks."""

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from tsv_bench import bars
from tsv_bench.benchmark.evaluator import Evaluator
from tsv_bench.benchmark.route import route_images
from tsv_bench.data import Split
from tsv_bench.data.corruptions.corrupted import Corruptions, in_parts
from tsv_bench.methods.forms import Routed, Served


def on_corrupted(
    served: Served,
    alpha: float,
    evaluator: Evaluator,
    testing: Mapping[str, Split],
    corruptions: Corruptions,
) -> dict[str, dict[str, np.ndarray]]:
    """Return corruption -> task -> which of its test images are right."""
    found: dict[str, dict[str, list]] = {
        name: {t: [] for t in testing} for name in corruptions.names
    }
    total = sum(len(split) for split in testing.values()) * len(found)
    with bars.bar(total=total, desc="corrupted images", unit="image", leave=False) as bar:

        def parts() -> Iterator[tuple[str, str, Split]]:
            # By task, so that what a task is served is loaded once.
            for task, split in testing.items():
                for name in corruptions.names:
                    for rows, pixels in in_parts(split.images.numpy(), name, corruptions.severity):
                        yield name, task, Split(torch.from_numpy(pixels), split.labels[rows])
                        bar.update(len(pixels))

        for name, task, hits in _correct(served, alpha, evaluator, parts()):
            found[name][task].append(hits)
    return {
        name: {task: np.concatenate(hits) for task, hits in of_task.items()}
        for name, of_task in found.items()
    }


def _correct(
    served: Served, alpha: float, evaluator: Evaluator, parts: Iterator[tuple[str, str, Split]]
) -> Iterator[tuple[str, str, np.ndarray]]:
    if isinstance(served, Routed):
        for name, task, split in parts:
            yield name, task, route_images(evaluator, served, {task: split}).correct[task]
        return
    names: deque[str] = deque()  # of those that were taken; several devices take some ahead

    def shown() -> Iterator[tuple[str, Split]]:
        for name, task, split in parts:
            names.append(name)
            yield task, split

    for task, hits in evaluator.correct_in_turn(served, alpha, shown()):
        yield names.popleft(), task, hits
