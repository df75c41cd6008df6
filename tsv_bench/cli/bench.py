"""tsv-bench: evaluate a method on a suite; with --multirun, compare several."""

import hashlib
import json
import logging
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from tqdm import tqdm

from tsv_bench import provenance
from tsv_bench.benchmark.evaluate import evaluate_method, open_task_vectors, stage
from tsv_bench.benchmark.record import finished_run, make_run
from tsv_bench.benchmark.runs import find_runs, load_run, save_run
from tsv_bench.benchmark.weights import write_weights
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.checkpoints.source import Source
from tsv_bench.cli import multirun
from tsv_bench.cli.config import objects
from tsv_bench.cli.config.checkpoint_files import make_cache
from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.needs import check_fetched
from tsv_bench.cli.config.normalizer import check_normalizer, make_normalizer
from tsv_bench.cli.config.tasks import make_tasks, suite_name
from tsv_bench.cli.launch import command, set_up_machine
from tsv_bench.data import SPLITS, Task
from tsv_bench.files import check_room
from tsv_bench.models import Backbone
from tsv_bench.models.distributed import torchrun
from tsv_bench.report.text.render import render_terminal
from tsv_bench.report.tracking import NoTracker
from tsv_bench.report.write_report import write_report

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
    tasks = make_tasks(config.suite.tasks)
    check_normalizer(config, tasks)
    search = objects.make_evaluation(config, device)
    tracker = objects.make_tracker(config)
    factors = make_cache(config)
    check_fetched(config)
    backbone = objects.make_backbone(config)
    source = objects.make_source(config, device)
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
        "method": method.settings,
        "evaluation": {"normalizer": config.normalizer, **search.settings},
        "version": provenance.versions()["tsv_bench"],
    }
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    check_room(Path(config.paths.runs), 10_000_000)
    if HydraConfig.get().mode == RunMode.MULTIRUN or not isinstance(tracker, NoTracker):
        check_room(Path(config.paths.report), 1_000_000)

    suite = suite_name(config)
    same = {"backbone": backbone.name, "suite": suite, "fingerprint": fingerprint}
    home = Path(config.paths.runs) / backbone.name / suite
    if not config.overwrite and (path := finished_run(home, **same)):
        log.info(f"{method.label}: already there, {path} (overwrite=true evaluates it again)")
        run, weights = load_run(path), None
    else:
        provenance.forget_peak_memory()
        seconds: dict[str, float] = {}
        checkpoints = collect(config, backbone, tasks, source, seconds)
        normalizer, origin = make_normalizer(config, backbone, tasks, method, checkpoints, settings)
        load = objects.make_loader(config, backbone)
        with stage("open", seconds):
            vectors = open_task_vectors(backbone, checkpoints, device, factors)
        with stage("heads", seconds):
            heads = objects.make_heads(config, backbone, tasks, source)
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
        weights = partial(write_weights, run, backbone.pretrained, outcome.served)
    if not isinstance(tracker, NoTracker):  # what is finished, too: one W&B run a job
        written = write_report(multirun.tables_of([path]), Path(config.paths.report))
        tracker.log_run(run, [plot for plot in written if plot.suffix == ".png"], weights)
    multirun.finished.append(path)
    if HydraConfig.get().mode == RunMode.RUN:
        # The individual models' Run, where there is one, gives the normalized accuracy's interval.
        individual = find_runs(home, method="individual", seed=config.seed)
        tables = multirun.tables_of([path, *(p for p, _ in individual)])
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
    objects.check_data(config, backbone, tasks, splits)
    load = objects.make_loader(config, backbone)
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


if __name__ == "__main__":
    main()
