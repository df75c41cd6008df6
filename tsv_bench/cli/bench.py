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
from tsv_bench.benchmark import Outcome, evaluate_method, open_task_vectors, stage
from tsv_bench.checkpoint_sources import Source
from tsv_bench.checkpoints import Checkpoint
from tsv_bench.cli import comparison, experiment
from tsv_bench.cli.factors import make_cache
from tsv_bench.cli.fetch import check_fetched
from tsv_bench.cli.launch import command, set_up_machine
from tsv_bench.cli.methods import make_method
from tsv_bench.cli.normalizers import check_normalizer, make_normalizer
from tsv_bench.data import SPLITS, Task
from tsv_bench.distributed import torchrun
from tsv_bench.files import check_room
from tsv_bench.method import Method
from tsv_bench.models import Backbone
from tsv_bench.report import render_terminal, write_report
from tsv_bench.runs import Run, find_runs, load_correct, save_run
from tsv_bench.tracking import NoTracker

log = logging.getLogger(__name__)


@command("bench")
def main(config: DictConfig) -> None:
    if torchrun():
        raise ValueError(
            "tsv-bench is for one process and torchrun started several, each of which would do "
            "all of it. Fine-tune by torchrun with tsv-finetune, then start tsv-bench without."
        )
    device = set_up_machine(config)
    method = make_method(config)
    tasks = experiment.make_tasks(config.suite.tasks)
    check_normalizer(config, tasks)
    search = experiment.make_evaluation(config, device)
    tracker = instantiate(config.tracker)
    factors = make_cache(config)
    check_fetched(config)
    backbone = experiment.make_backbone(config)
    source = experiment.make_source(config, device)
    settings = {
        "backbone": {"name": backbone.name, "fingerprint": backbone.fingerprint},
        "tasks": {
            name: {
                "data": task.fingerprint,
                "templates": list(task.templates),
                "checkpoint": source.settings(backbone, task),
            }
            for name, task in tasks.items()
        },
        "method": {
            "name": method.name,
            "knobs": method.knobs,
            "alphas": method.alphas,
            **({"candidates": list(method.choice.candidates)} if method.chosen_by_task else {}),
        },
        "evaluation": {"normalizer": config.normalizer, **search.settings},
        "version": provenance.versions()["tsv_bench"],
    }
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    check_room(Path(config.paths.runs), 10_000_000)
    if HydraConfig.get().mode == RunMode.MULTIRUN or not isinstance(tracker, NoTracker):
        check_room(Path(config.paths.report), 1_000_000)

    suite = experiment.suite_name(config)
    same = {"backbone": backbone.name, "suite": suite, "fingerprint": fingerprint}
    home = Path(config.paths.runs) / backbone.name / suite
    if not config.overwrite and (path := finished_run(home, **same)):
        log.info(f"{method.label}: already there, {path} (overwrite=true evaluates it again)")
    else:
        provenance.forget_peak_memory()
        seconds: dict[str, float] = {}
        checkpoints = collect(config, backbone, tasks, source, seconds)
        normalizer, origin = make_normalizer(config, backbone, tasks, method, checkpoints, settings)
        load = experiment.make_loader(config, backbone)
        with stage("open", seconds):
            vectors = open_task_vectors(backbone, checkpoints, device, factors)
        with stage("heads", seconds):
            heads = experiment.make_heads(config, backbone, tasks, source)
            evaluator = search.evaluator(backbone, heads)
        outcome = evaluate_method(
            tasks, method, vectors, evaluator, load, normalizer, search.patience
        )
        outcome.seconds = {**seconds, **outcome.seconds}
        run = make_run(
            backbone, suite, tasks, method, checkpoints, outcome, origin,
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
        tables = comparison.tables_of([path, *(p for p, _ in individual)])
        print(render_terminal(tables, layout=config.layout))


def collect(
    config: DictConfig,
    backbone: Backbone,
    tasks: dict[str, Task],
    source: Source,
    seconds: dict[str, float],
) -> dict[str, Checkpoint]:
    """Each task's checkpoint; what could keep one from being made is found before the first is."""
    missing = {name: task for name, task in tasks.items() if source.needed(backbone, [task])}
    splits = {name: SPLITS if name in missing else ("val", "test") for name in tasks}
    experiment.check_data(config, backbone, tasks, splits)
    load = experiment.make_loader(config, backbone)
    if missing:
        check_room(Path(source.folder), source.needed(backbone, list(missing.values())))
        with stage("data", seconds):  # a damaged image, too, before hours of training
            for name, task in tasks.items():
                for split in splits[name]:
                    load(task, split)
    with stage("checkpoints", seconds):
        bar = tqdm(tasks.items(), desc="checkpoints", unit="task", leave=False, disable=not missing)
        return {
            name: source.checkpoint(backbone, task, lambda split, task=task: load(task, split))
            for name, task in bar
        }


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
        test={task: evaluation.score(hits) for task, hits in outcome.test.items()},
        val={task: evaluation.score(hits) for task, hits in outcome.val.items()},
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


if __name__ == "__main__":
    main()
