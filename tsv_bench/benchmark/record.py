"""The Run of an evaluated method, and finding one that is finished."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tsv_bench import provenance
from tsv_bench.benchmark.evaluate import Outcome
from tsv_bench.benchmark.runs import Run, find_runs, load_correct
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.data import Task
from tsv_bench.methods.method import Method
from tsv_bench.models import Backbone
from tsv_bench.scores import score

log = logging.getLogger(__name__)


def finished_run(folder: Path, **equal: Any) -> Path | None:
    """The first Run with these fields whose per-image correctness is there too."""
    for path, _ in find_runs(folder, **equal):
        try:
            load_correct(path)
        except ValueError as error:
            log.warning(f"{error} Evaluating again.")
        else:
            return path
    return None


def make_run(
    backbone: Backbone,
    suite: str,
    tasks: dict[str, Task],
    method: Method,
    checkpoints: dict[str, Checkpoint],
    outcome: Outcome,
    normalizer_source: str,
    *,
    seed: int,
    settings: dict[str, Any],
    fingerprint: str,
    device: str,
) -> Run:
    hashes = {
        name: {"sha256": c.sha256, "generation": c.generation} for name, c in checkpoints.items()
    }
    return Run(
        backbone=backbone.name,
        suite=suite,
        method=method.name,
        label=method.label,
        seed=seed,
        knobs=method.knobs,
        tasks={name: task.label for name, task in tasks.items()},
        alpha=outcome.alpha,
        alpha_curve=[{"alpha": a, "normalized": n} for a, n in outcome.curve.items()],
        test={task: score(hits) for task, hits in outcome.test.items()},
        val={task: score(hits) for task, hits in outcome.val.items()},
        absolute=outcome.absolute,
        normalized=outcome.normalized,
        normalizer=outcome.normalizer,
        normalizer_source=normalizer_source,
        seconds=outcome.seconds,
        peak_memory=provenance.peak_memory(),
        stored_bytes=outcome.stored_bytes,
        task_known=outcome.task_known,
        task_knobs=outcome.task_knobs,
        checkpoints={
            **hashes,
            "pretrained": {"sha256": backbone.fingerprint, "generation": backbone.name},
        },
        data={name: task.fingerprint for name, task in tasks.items()},
        variants={name: task.variant for name, task in tasks.items() if task.variant},
        settings=settings,
        fingerprint=fingerprint,
        versions=provenance.versions(),
        commit=provenance.commit(),
        machine=provenance.machine(device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
