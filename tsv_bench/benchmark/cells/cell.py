"""A cell of the benchmark: its settings, its fingerprint and where its Run lies."""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from tsv_bench import provenance
from tsv_bench.benchmark.beyond.generalize import Generalization
from tsv_bench.benchmark.evaluate import Outcome
from tsv_bench.benchmark.evaluator import Evaluation
from tsv_bench.benchmark.given.observe import Given
from tsv_bench.benchmark.route import router_scores
from tsv_bench.benchmark.runs import Run, find_runs, load_correct, load_run
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.checkpoints.source import Source, task_settings
from tsv_bench.data import Task
from tsv_bench.data.corruptions.corrupted import Corruptions
from tsv_bench.files import Stamp, stamp
from tsv_bench.methods.method import Method
from tsv_bench.models.backbone import Named
from tsv_bench.models.finetuning import Finetuning
from tsv_bench.scores import score
from tsv_bench.state_dicts.steps.unfinished import Unfinished
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

    def written(self) -> Stamp | None:
        """Return what tells when the Run's file was written; None if there is none."""
        with suppress(OSError):
            return stamp(self.file)
        return None

    def made_since(self, before: Stamp | None) -> tuple[Path, Run] | None:
        """Return the Run and its file if another process has `written` it since; None if not."""
        if self.written() == before or (path := self.finished()) is None:
            return None
        return path, load_run(path)

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
