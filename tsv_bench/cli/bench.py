"""tsv-bench: evaluate a method on a suite; with --multirun, compare several."""

import hashlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from tsv_bench import evaluation, provenance
from tsv_bench.benchmark import Outcome, evaluate_method, stage
from tsv_bench.checkpoint_sources import Source
from tsv_bench.checkpoints import Checkpoint
from tsv_bench.cli import comparison, experiment
from tsv_bench.cli.factors import make_cache
from tsv_bench.cli.launch import command, set_up_machine
from tsv_bench.cli.methods import make_method
from tsv_bench.data import Task
from tsv_bench.files import check_room
from tsv_bench.method import Method
from tsv_bench.models import Backbone
from tsv_bench.report import render_terminal, write_report
from tsv_bench.runs import Run, find_runs, load_correct, save_run
from tsv_bench.tracking import NoTracker

log = logging.getLogger(__name__)

DATA_BYTES = 20_000_000  # a task of the embedded suite: its data set and its decoded images


@command("bench")
def main(config: DictConfig) -> None:
    device = set_up_machine(config)
    method = make_method(config)
    tasks = experiment.make_tasks(config.suite.tasks)
    tracker = instantiate(config.tracker)
    factors = make_cache(config)
    backbone = experiment.make_backbone(config)
    source = experiment.make_source(config, device)
    settings = {
        "backbone": {"name": backbone.name, "fingerprint": backbone.fingerprint},
        "tasks": {
            name: {"data": task.fingerprint, "checkpoint": source.settings(backbone, task)}
            for name, task in tasks.items()
        },
        "method": {"name": method.name, "knobs": method.knobs, "alphas": method.alphas},
        "version": provenance.versions()["tsv_bench"],
    }
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    check_room(Path(config.paths.runs), 10_000_000)
    check_room(Path(config.paths.data), len(tasks) * DATA_BYTES)
    if HydraConfig.get().mode == RunMode.MULTIRUN or not isinstance(tracker, NoTracker):
        check_room(Path(config.paths.report), 1_000_000)
    needed = source.needed(backbone, list(tasks.values()))
    check_room(Path(source.folder), needed)

    suite = experiment.suite_name(config)
    same = {"backbone": backbone.name, "suite": suite, "fingerprint": fingerprint}
    home = Path(config.paths.runs) / backbone.name / suite
    if not config.overwrite and (path := finished_run(home, **same)):
        log.info(f"{method.label}: already there, {path} (overwrite=true evaluates it again)")
    else:
        load = experiment.make_loader(config, backbone)
        seconds: dict[str, float] = {}
        with stage("checkpoints", seconds):
            bar = tqdm(
                tasks.items(), desc="checkpoints", unit="task", leave=False, disable=not needed
            )
            checkpoints = {
                name: source.checkpoint(backbone, task, lambda split, task=task: load(task, split))
                for name, task in bar
            }
        outcome = evaluate_method(backbone, tasks, method, checkpoints, load, device, factors)
        outcome.seconds = {**seconds, **outcome.seconds}
        run = make_run(
            backbone, suite, tasks, method, source, checkpoints, outcome,
            seed=config.seed, settings=settings, fingerprint=fingerprint, device=device,
        )  # fmt: skip
        path = save_run(run, outcome.test, Path(config.paths.runs))
        log.info(
            f"{method.label}: {100 * run.absolute:.1f}% absolute, {100 * run.normalized:.1f}% "
            f"normalized at alpha {run.alpha:g} -> {path}"
        )
        if not isinstance(tracker, NoTracker):
            written = write_report(comparison.tables_of([path]), Path(config.paths.report))
            tracker.log_run(run, [plot for plot in written if plot.suffix == ".png"])
    comparison.finished.append(path)
    if HydraConfig.get().mode == RunMode.RUN:
        # The individual models' Run, where there is one, gives the normalized accuracy's interval.
        individual = find_runs(home, method="individual", seed=config.seed)
        print(render_terminal(comparison.tables_of([path, *(p for p, _ in individual)])))


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
    source: Source,
    checkpoints: dict[str, Checkpoint],
    outcome: Outcome,
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
        test={task: evaluation.score(hits) for task, hits in outcome.test.items()},
        val={task: evaluation.score(hits) for task, hits in outcome.val.items()},
        absolute=outcome.absolute,
        normalized=outcome.normalized,
        normalizer={task: own.accuracy for task, own in outcome.normalizer.items()},
        normalizer_source=f"each task's own checkpoint ({source.generation}), same test images",
        seconds=outcome.seconds,
        peak_memory=provenance.peak_memory(),
        checkpoints={
            **hashes,
            "pretrained": {"sha256": backbone.fingerprint, "generation": backbone.name},
        },
        data={name: task.fingerprint for name, task in tasks.items()},
        settings=settings,
        fingerprint=fingerprint,
        versions=provenance.versions(),
        commit=provenance.commit(),
        machine=provenance.machine(device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


if __name__ == "__main__":
    main()
