"""Give a method what it needs of the suite's images: statistics of each network, or a bench."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.benchmark.given.unfinished import Unfinished
from tsv_bench.benchmark.runs import Seen
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.checkpoints.image_tower import image_tower
from tsv_bench.data import Split, Task
from tsv_bench.methods.method import Method
from tsv_bench.methods.needs import BENCH, Needs
from tsv_bench.models import Backbone
from tsv_bench.observation.gather import Observatory, Shown, drawn
from tsv_bench.observation.statistics_file import StatisticsFile
from tsv_bench.state_dicts.state_dict import open_state_dict


@dataclass(frozen=True)
class Given:
    """A method with all that it needs, and what that was made of."""

    method: Method
    spent: Mapping[str, float] = field(default_factory=dict)  # by statistics: passes and seconds
    bench: ImageBench | None = None
    # Task -> rows of validation that choose nothing, since the method saw them.
    seen_rows: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def details(self) -> dict[str, Any]:
        """What the method noted for the Run, after it has served."""
        return self.bench.details if self.bench else {}

    def seen(self, merge_seconds: float) -> Seen | None:
        """Return what the method saw, after it has served; None if it sees no data.

        ``merge_seconds``: what a method that learns took.
        """
        needs, bench = self.method.needs, self.bench
        if needs is None:
            return None
        passes = {
            name: self.spent[name] + (getattr(bench, name) if bench else 0)
            for name in ("forward_passes", "backward_passes")
        }
        return Seen(
            split=needs.split,
            images=needs.images,
            labels=needs.labels,
            **{name: round(number) for name, number in passes.items()},
            seconds=round(self.spent["seconds"] + (merge_seconds if bench else 0), 3),
        )


def observe(
    method: Method,
    backbone: Backbone,
    tasks: Mapping[str, Task],
    checkpoints: Mapping[str, Checkpoint],
    heads: Mapping[str, Tensor],
    load: Callable[[Task, str], Split],
    *,
    folder: Path,
    device: str,
    seed: int,
    unfinished: Unfinished | None = None,
) -> Given:
    """Gather the statistics that a method needs, or find them in the ``folder``.

    ``load`` returns a task's images of a split; the ``seed`` draws some of them. ``unfinished`` is
    where a method that learns keeps its work until the Run is finished. Raises ValueError if a
    split has fewer images than the method is to see, or leaves none to choose alpha on.
    """
    needs = method.needs
    if needs is None:
        return Given(method)
    rows = draw(method, tasks, load, seed)
    arguments: dict[str, Any] = {kind: {} for kind in needs.statistics}
    observatory = Observatory(backbone.visual, folder / backbone.name, device)
    spent = dict.fromkeys(("forward_passes", "backward_passes", "seconds"), 0.0)
    bar = tqdm(tasks.items(), desc=f"{method.label}: statistics", unit="task", leave=False)
    for name, task in bar if needs.statistics else ():
        state = image_tower(open_state_dict(checkpoints[name].path), backbone.pretrained)
        about = {
            "checkpoint": checkpoints[name].sha256,
            "backbone": backbone.fingerprint,
            "data": task.fingerprint,
            "split": needs.split,
            "images": needs.images,
            "seed": seed,
        }
        observed = Shown(
            task=name,
            state=state,
            head=heads[name],
            images=load(task, needs.split).images[rows[name]],
            about=about,
        )
        found = observatory.statistics(observed, needs.statistics, needs.classes)
        for kind, statistics in found.items():
            arguments[kind][name] = statistics
        _add_spent(spent, found)
    bench = None
    if needs.learns:
        splits = {name: load(task, needs.split) for name, task in tasks.items()}
        images = {name: split.images[rows[name]] for name, split in splits.items()}
        labels = {name: split.labels[rows[name]] for name, split in splits.items()}
        bench = ImageBench(
            backbone, heads, images, labels if needs.labels else None,
            device=device, seed=seed, unfinished=unfinished,
        )  # fmt: skip
        arguments[BENCH] = bench
    seen_rows = {n: of_task.numpy() for n, of_task in rows.items()} if _apart(needs) else {}
    return Given(method.given(**arguments), spent, bench, seen_rows)


def draw(
    method: Method, tasks: Mapping[str, Task], load: Callable[[Task, str], Split], seed: int
) -> dict[str, Tensor]:
    """Return for each task the rows of the images that the method sees, drawn by the seed.

    Raises ValueError if a split has fewer, or if none would be left to choose alpha on.
    """
    needs, rows = method.needs, {}
    searches = len(method.alphas) > 1 or method.knob_is_open
    for name, task in tasks.items():
        split = load(task, needs.split)
        rows[name] = drawn(split, needs.images, seed, f"the {needs.split} images of {name}")
        if searches and _apart(needs) and len(split) == needs.images:
            raise ValueError(
                f"the method sees all {len(split)} validation images of {name}, which leaves none "
                f"to choose alpha on. Lower method.images, or set method.split=train."
            )
    return rows


def _add_spent(spent: dict[str, float], found: Mapping[str, StatisticsFile]) -> None:
    """Add what one task's statistics took; kinds of linear inputs come from one pass."""
    passes = [
        [f for kind, f in found.items() if (kind == "fisher") == own] for own in (True, False)
    ]
    for key in spent:
        spent[key] += sum(max(file.about[key] for file in files) for files in passes if files)


def _apart(needs: Needs) -> bool:
    """Return whether the images that are seen are validation images that choose nothing."""
    return needs.split == "val" and not needs.alpha_on_seen
