"""Make the Run of one cell of the benchmark: checkpoints, vectors, evaluation, record."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tsv_bench import bars, provenance
from tsv_bench.benchmark.beyond.generalize import Generalization, generalize
from tsv_bench.benchmark.beyond.unseen import check_shared, own_models
from tsv_bench.benchmark.doubts import doubts
from tsv_bench.benchmark.evaluate import (
    Accuracies,
    Outcome,
    evaluate_method,
    open_task_vectors,
    stage,
)
from tsv_bench.benchmark.evaluator import Evaluation
from tsv_bench.benchmark.given.observe import Given, draw, observe
from tsv_bench.benchmark.route import router_scores
from tsv_bench.benchmark.runs import Run, find_runs, load_correct, save_run
from tsv_bench.benchmark.validate import validate
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.checkpoints.source import Source, task_settings
from tsv_bench.data import SPLITS, Split, Task
from tsv_bench.data.corruptions.corrupted import Corruptions
from tsv_bench.files import check_room
from tsv_bench.methods.forms import Served
from tsv_bench.methods.method import Method
from tsv_bench.methods.needs import PRETRAINED
from tsv_bench.models.backbone import Named
from tsv_bench.models.finetuning import Finetuning
from tsv_bench.scores import score
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.steps.unfinished import Unfinished
from tsv_bench.task_vectors.task_vector import Weights
from tsv_bench.wording.escaping import check_name, visible

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the benchmark: a method on a suite, a backbone and a source of checkpoints."""

    backbone: Named  # a `Backbone` once the Run is to be made
    suite: str
    tasks: Mapping[str, Task]
    method: Method
    source: Source
    seed: int  # of fine-tuning
    normalizer: str  # "own" or "published"
    evaluation: Evaluation
    runs: Path  # the folder of all Runs
    statistics: Path  # the folder of statistics of images
    finetuning: Finetuning | None = None  # the backbone's; only for a method that fine-tunes
    unseen: Mapping[str, Task] = field(default_factory=dict)  # tested, but not merged
    corruptions: Corruptions | None = None  # of test images of the merged tasks

    def __post_init__(self) -> None:
        check_name(self.suite, "the suite's name")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that may change the result, as plain data."""
        settings = {
            "backbone": {"name": self.backbone.name, "fingerprint": self.backbone.fingerprint},
            "tasks": task_settings(self.source, self.backbone, self.tasks),
            "method": self.method.settings,
            "evaluation": {"normalizer": self.normalizer, **self.evaluation.settings},
            "version": provenance.versions()["tsv_bench"],
        }
        if self.finetuning:
            settings["finetuning"] = {
                "recipe": self.finetuning.settings,
                "epochs": {name: task.epochs for name, task in self.tasks.items()},
                "seed": self.seed,
            }
        if self.unseen:
            settings["unseen"] = task_settings(self.source, self.backbone, self.unseen)
        if self.corruptions:
            settings["corruptions"] = self.corruptions.settings
        return settings

    @property
    def all_tasks(self) -> dict[str, Task]:
        """The tasks that are merged, then the unseen ones."""
        return {**self.tasks, **self.unseen}

    @cached_property
    def fingerprint(self) -> str:
        """The first twelve digits of the settings' sha256."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """The folder of the Runs of this backbone and suite."""
        return self.runs / self.backbone.name / self.suite

    @property
    def file(self) -> Path:
        """The file of the Run."""
        return self.folder / f"{self.method.name}-{self.fingerprint}.json"

    def finished(self) -> Path | None:
        """Return the file of the Run with this fingerprint; None if there is none.

        One whose per-image correctness is missing, damaged or another's is skipped with a warning.
        """
        same = {"backbone": self.backbone.name, "suite": self.suite}
        for path, run in find_runs(self.folder, **same, fingerprint=self.fingerprint):
            try:
                load_correct(path, run)
            except ValueError as error:
                log.warning(f"{visible(str(error))} Evaluating again.")
            else:
                self.unfinished({}).remove_if_before(path)
                return path
        return None

    def unfinished(self, checkpoints: Mapping[str, Checkpoint]) -> Unfinished:
        """Return where the method keeps its work: beside the Run's file, until that is written."""
        made_of = [self.fingerprint, {name: c.sha256 for name, c in checkpoints.items()}]
        return Unfinished(self.file.with_suffix(".unfinished"), made_of)

    def record(
        self,
        checkpoints: Mapping[str, Checkpoint],
        outcome: Outcome,
        origin: str,
        given: Given,
        beyond: Generalization,
    ) -> Run:
        """Return the Run of an outcome; ``origin`` says where the normalizer is from.

        ``given``: the method with what it saw and noted; ``beyond``: how it did elsewhere.
        """
        used = {name: checkpoints[name].identity for name in self.tasks}
        used["pretrained"] = {
            "sha256": self.backbone.fingerprint,
            "generation": self.backbone.name,
        }
        return Run(
            backbone=self.backbone.name,
            suite=self.suite,
            method=self.method.name,
            label=self.method.label,
            seed=self.seed,
            knobs=self.method.knobs,
            tasks={name: task.label for name, task in self.tasks.items()},
            alpha=outcome.alpha,
            alpha_curve=[{"alpha": a, "normalized": n} for a, n in outcome.curve.items()],
            test={task: score(hits) for task, hits in outcome.test.items()},
            val={task: score(hits) for task, hits in outcome.val.items()},
            absolute=outcome.absolute,
            normalized=outcome.normalized,
            normalized_val=outcome.normalized_val,
            normalizer=outcome.normalizer,
            normalizer_source=origin,
            seconds=outcome.seconds,
            peak_memory=provenance.peak_memory(),
            stored_bytes=outcome.stored_bytes,
            task_known=outcome.task_known,
            task_knobs=outcome.task_knobs,
            seen=given.seen(outcome.seconds["merge"]),
            router=router_scores(outcome.routes) if outcome.routes else None,
            unseen=beyond.unseen,
            corrupted=beyond.corrupted,
            details=given.details,
            checkpoints=used,
            data={name: task.fingerprint for name, task in self.all_tasks.items()},
            variants={name: task.variant for name, task in self.all_tasks.items() if task.variant},
            settings=self.settings,
            fingerprint=self.fingerprint,
            versions=provenance.versions(),
            commit=provenance.commit(),
            machine=provenance.machine(",".join(self.evaluation.devices)),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def make_run(
    cell: Cell,
    *,
    load: Callable[[Task, str], Split],
    check_data: Callable[[Mapping[str, Sequence[str]]], None],
    make_heads: Callable[[], Mapping[str, Tensor]],
    find_normalizer: Callable[[Mapping[str, Checkpoint]], tuple[Accuracies | None, str]],
    factors: FactorCache | None = None,
    merged_on: str | None = None,
    validates: bool = False,
    finished: tuple[Path, Run] | None = None,
) -> tuple[Path, Run, Served | None]:
    """Evaluate a cell and save its Run; return its file, the Run and what was served.

    ``load`` returns a task's images of a split. ``check_data`` gets task -> splits before any is
    decoded and raises if data are missing. ``make_heads`` returns task -> head.
    ``find_normalizer`` gets the checkpoints and returns the normalizer (see `evaluate_method`) and
    where it is from. ``merged_on``: devices of a method that sees weights alone, if there are
    several. ``validates``: on validation, too, if alpha is fixed. ``finished``:
    the cell's Run and its file: it is evaluated on validation alone, and nothing else is changed.
    """
    provenance.forget_peak_memory()
    evaluation, seconds = cell.evaluation, {}
    checkpoints = make_checkpoints(cell, load, check_data, seconds)
    merged = {name: checkpoints[name] for name in cell.tasks}
    normalizer, origin = find_normalizer(checkpoints)
    with stage("open", seconds):
        device = evaluation.device if cell.method.needs else merged_on or evaluation.device
        vectors = open_task_vectors(cell.backbone, merged, device, factors)
    with stage("heads", seconds):
        heads = make_heads()
    method = cell.method
    if method.sees_weights:
        weights = Weights(cell.backbone.pretrained, next(iter(vectors.values())), device)
        method = method.given(**{PRETRAINED: weights})
    given, unfinished = Given(method), cell.unfinished(merged)
    # Not before it is used: it holds a copy of the network.
    evaluator = cache(lambda: evaluation.evaluator(cell.backbone, heads))
    if cell.method.needs:
        with stage("statistics", seconds):
            given = observe(
                method, cell.backbone, cell.tasks, merged,
                {name: heads[name] for name in cell.tasks}, load,
                folder=cell.statistics, device=evaluation.device, seed=cell.seed,
                unfinished=unfinished, finetuning=cell.finetuning, evaluator=evaluator,
            )  # fmt: skip
    common = (cell.tasks, given.method, vectors, evaluator(), load, normalizer)
    if finished:
        path, run = finished
        knobs = {task: next(iter(of_task.values())) for task, of_task in run.task_knobs.items()}
        hits, normalized = validate(*common, given.seen_rows, run.alpha, knobs)
        val = {task: score(of_task) for task, of_task in hits.items()}
        run = replace(run, val=val, normalized_val=normalized)
        path = save_run(run, load_correct(path, run), cell.runs)
        unfinished.remove()
        return path, run, None
    check = partial(check_shared, unseen=cell.unseen if normalizer else {})
    outcome = evaluate_method(*common, evaluation.patience, given.seen_rows, validates, check)
    outcome.seconds = {**seconds, **outcome.seconds}
    others = {name: checkpoints[name] for name in cell.unseen}
    own = None if normalizer else own_models(cell.method, cell.backbone, others)
    beyond = generalize(
        outcome, evaluator(), load, tasks=cell.tasks, unseen=cell.unseen,
        corruptions=cell.corruptions, checkpoints=others,
        normalizer=normalizer and normalizer["test"], own=own,
    )  # fmt: skip
    run = cell.record(checkpoints, outcome, origin, given, beyond)
    for sentence in doubts(run):
        log.warning(sentence)
    path = save_run(run, outcome.test | beyond.bits, cell.runs)
    unfinished.remove()
    return path, run, outcome.served


def make_checkpoints(
    cell: Cell,
    load: Callable[[Task, str], Split],
    check_data: Callable[[Mapping[str, Sequence[str]]], None],
    seconds: dict[str, float],
) -> dict[str, Checkpoint]:
    """Return each task's checkpoint; missing ones are made, by fine-tuning if the source does so.

    Data and disk space are checked before the first is made. ``seconds`` gets the time of each
    stage.
    """
    backbone, tasks, source = cell.backbone, cell.all_tasks, cell.source
    missing = {name: task for name, task in tasks.items() if source.needed(backbone, [task])}
    seen = cell.method.needs.split if cell.method.needs else "val"
    found = tuple(split for split in SPLITS if split in ("val", "test", seen))
    splits = {name: found if name in cell.tasks else ("test",) for name in tasks}
    splits |= dict.fromkeys(missing, SPLITS)
    check_data(splits)
    if cell.method.needs:  # too few images are found before hours of training
        draw(cell.method, cell.tasks, load, cell.seed)
    if missing:
        check_room(Path(source.folder), source.needed(backbone, list(missing.values())))
        with stage("data", seconds):  # a damaged image is found before hours of training
            for name, task in tasks.items():
                for split in splits[name]:
                    load(task, split)
    with stage("checkpoints", seconds):
        bar = bars.bar(
            tasks.items(), desc="checkpoints", unit="task", leave=False, disable=not missing
        )
        return {
            name: source.checkpoint(backbone, task, lambda split, task=task: load(task, split))
            for name, task in bar
        }
