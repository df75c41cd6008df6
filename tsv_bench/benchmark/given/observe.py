"""Give a method what it needs of the suite's images: statistics of each network, or a bench."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tsv_bench import bars
from tsv_bench.benchmark.evaluate import unseen
from tsv_bench.benchmark.evaluator import Evaluator
from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.benchmark.given.reports import Reports
from tsv_bench.benchmark.given.training import Rows, Training
from tsv_bench.benchmark.runs import Seen
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.checkpoints.image_tower import image_tower
from tsv_bench.data import Split, Task
from tsv_bench.methods.method import Method
from tsv_bench.methods.needs import BENCH, Needs
from tsv_bench.models import Backbone
from tsv_bench.models.finetuning import Finetuning
from tsv_bench.observation.gather import Observatory, Shown, drawn
from tsv_bench.observation.statistics_file import StatisticsFile
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.state_dicts.steps.unfinished import Unfinished


@dataclass(frozen=True)
class Given:
    """A method with all that it needs, and what that was made of."""

    method: Method
    spent: Mapping[str, float] = field(default_factory=dict)  # by statistics: passes and seconds
    bench: ImageBench | None = None
    images: int = 0  # that are seen of a task, the mean over tasks
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
            images=needs.images if needs.share is None else self.images,
            share=needs.share,
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
    finetuning: Finetuning | None = None,
    evaluator: Callable[[], Evaluator] | None = None,
) -> Given:
    """Gather the statistics that a method needs, or find them in the ``folder``.

    ``load`` returns a task's images of a split; the ``seed`` draws some of them. ``unfinished`` is
    where a method that learns keeps its work until the Run is finished. ``finetuning`` is the
    backbone's, for a method that fine-tunes; ``evaluator`` gives what evaluates its reports. Raises
    ValueError if a split has fewer images than the method is to see, or leaves none to choose alpha
    on.
    """
    needs = method.needs
    if needs is None:
        return Given(method)
    rows = draw(method, tasks, load, seed)
    arguments: dict[str, Any] = {kind: {} for kind in needs.statistics}
    observatory = Observatory(backbone.visual, folder / backbone.name, device)
    spent = dict.fromkeys(("forward_passes", "backward_passes", "seconds"), 0.0)
    bar = bars.bar(tasks.items(), desc=f"{method.label}: statistics", unit="task", leave=False)
    for name, task in bar if needs.statistics else ():
        state = image_tower(open_state_dict(checkpoints[name].path), backbone.pretrained)
        about = {
            "checkpoint": checkpoints[name].sha256,
            "backbone": backbone.fingerprint,
            "data": task.fingerprint,
            "split": needs.split,
            "images": len(rows[name]),
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
    seen_rows = {n: of_task.numpy() for n, of_task in rows.items()} if _apart(needs) else {}
    bench = None
    if needs.learns:
        splits = {name: load(task, needs.split) for name, task in tasks.items()}
        # Fine-tuning takes a batch at a time, of splits that need not fit the memory.
        show = Rows if needs.fine_tunes else Tensor.__getitem__
        images = {name: show(split.images, rows[name]) for name, split in splits.items()}
        labels = {name: split.labels[rows[name]] for name, split in splits.items()}
        training = reports = None
        if evaluator:
            reports = _reports(tasks, load, evaluator, seen_rows, unfinished)
        if needs.fine_tunes:
            training = Training(
                finetuning=_whose(finetuning, backbone), seed=seed, device=device,
                epochs={name: task.epochs for name, task in tasks.items()}, unfinished=unfinished,
            )  # fmt: skip
        bench = ImageBench(
            backbone, heads, images, labels if needs.labels else None, device=device, seed=seed,
            unfinished=unfinished, training=training, reports=reports,
        )  # fmt: skip
        arguments[BENCH] = bench
    mean = round(sum(map(len, rows.values())) / len(rows)) if rows else 0
    return Given(method.given(**arguments), spent, bench, mean, seen_rows)


def _whose(finetuning: Finetuning | None, backbone: Backbone) -> Finetuning:
    if finetuning is None:
        raise ValueError(
            f"the method fine-tunes, and conf/backbone/{backbone.name}.yaml does not say how: it "
            f"needs finetune, as conf/backbone/mini.yaml has it."
        )
    return finetuning


def _reports(
    tasks: Mapping[str, Task],
    load: Callable[[Task, str], Split],
    evaluator: Callable[[], Evaluator],
    seen_rows: Mapping[str, np.ndarray],
    unfinished: Unfinished | None,
) -> Reports:
    """Return what evaluates on the validation images that the method does not see."""

    def evaluate(vector: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        validation = {name: load(task, "val") for name, task in tasks.items()}
        hits = evaluator().correct(dict.fromkeys(tasks, vector), 1.0, validation)
        return unseen(hits, seen_rows)

    return Reports(evaluate, unfinished)


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
        count, what = needs.count(len(split)), f"the {needs.split} images of {name}"
        rows[name] = drawn(split, count, seed, what)
        if searches and _apart(needs) and len(split) == count:
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
