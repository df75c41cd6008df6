"""The work of tsv-bench."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tsv_bench.benchmark.generalization import check_unseen
from tsv_bench.benchmark.record import Cell, make_run
from tsv_bench.benchmark.runs import find_runs, load_run
from tsv_bench.benchmark.weights import write_weights
from tsv_bench.cli.config import objects
from tsv_bench.cli.config.checkpoint_files import make_cache
from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.needs import check_fetched
from tsv_bench.cli.config.normalizer import make_normalizer
from tsv_bench.cli.config.tasks import make_corruptions, make_tasks, suite_name, without_unseen
from tsv_bench.cli.multirun import tables_of
from tsv_bench.cli.printing import show
from tsv_bench.cli.work.machine import set_up_machine
from tsv_bench.files import check_room
from tsv_bench.report.text.render import render_terminal
from tsv_bench.report.tracking import NoTracker
from tsv_bench.report.write_report import write_report

log = logging.getLogger(__name__)


def bench(config: DictConfig) -> Path:
    """Make one Run, or find it finished; return its file."""
    machine = set_up_machine(config)
    tracker = objects.make_tracker(config)
    factors = make_cache(config)
    cell = make_cell(config, machine.device)
    check_room(cell.runs, 10_000_000)
    if HydraConfig.get().mode == RunMode.MULTIRUN or not isinstance(tracker, NoTracker):
        check_room(Path(config.paths.report), 1_000_000)

    label = cell.method.label
    path = None if config.overwrite else cell.finished()
    if path:
        log.info(f"{label}: already there, {path} (overwrite=true evaluates it again)")
        run, weights = load_run(path), None
    else:
        backbone = objects.make_backbone(config)
        path, run, served = make_run(
            replace(cell, backbone=backbone),
            load=objects.make_loader(config, backbone),
            check_data=partial(objects.check_data, config, backbone, cell.all_tasks),
            make_heads=partial(objects.make_heads, config, backbone, cell.all_tasks, cell.source),
            find_normalizer=partial(make_normalizer, config, cell),
            factors=factors,
            merged_on=machine.all_devices,
        )
        log.info(
            f"{label}: {100 * run.absolute:.1f}% absolute, {100 * run.normalized:.1f}% "
            f"normalized at alpha {run.alpha:g} -> {path}"
        )
        weights = partial(write_weights, run, backbone.pretrained, served)
    if not isinstance(tracker, NoTracker):  # also of a Run that was there: one W&B run a job
        written = write_report(tables_of([path]), Path(config.paths.report))
        tracker.log_run(run, [plot for plot in written if plot.suffix == ".png"], weights)
    if HydraConfig.get().mode == RunMode.RUN:
        # The Run of the individual models, if any, gives the normalized accuracy's interval.
        individual = find_runs(cell.folder, method="individual", seed=config.seed)
        tables = tables_of([path, *(p for p, _ in individual)])
        show(render_terminal(tables, layout=config.layout))
    return path


def make_cell(config: DictConfig, device: str) -> Cell:
    """Return what is to be evaluated. Raises ValueError or OSError for a wrong configuration."""
    method = make_method(config)
    tasks, unseen = without_unseen(make_tasks(config.suite.tasks), config.unseen)
    method.check_tasks(tasks)
    check_unseen(method, tasks, unseen)
    evaluation = objects.make_evaluation(config, device)
    check_fetched(config)
    fine_tunes = method.needs is not None and method.needs.fine_tunes
    return Cell(
        backbone=objects.name_backbone(config),
        suite=suite_name(config),
        tasks=tasks,
        method=method,
        source=objects.make_source(config, device),
        seed=config.seed,
        normalizer=config.normalizer,
        evaluation=evaluation,
        runs=Path(config.paths.runs),
        statistics=Path(config.paths.statistics),
        finetuning=objects.make_finetuning(config) if fine_tunes else None,
        unseen=unseen,
        corruptions=make_corruptions(config),
    )
