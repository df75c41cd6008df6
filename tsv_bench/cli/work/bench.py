"""The work of tsv-bench."""

import logging
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tsv_bench.benchmark.beyond.unseen import check_unseen
from tsv_bench.benchmark.cells.cell import Cell
from tsv_bench.benchmark.cells.make_run import make_run
from tsv_bench.benchmark.runs import Run, find_runs, load_run
from tsv_bench.benchmark.weights import write_weights
from tsv_bench.cli.config import objects
from tsv_bench.cli.config.checkpoint_files import make_cache
from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.needs import check_fetched
from tsv_bench.cli.config.normalizer import make_normalizer
from tsv_bench.cli.config.tasks import make_corruptions, make_tasks, suite_name, without_unseen
from tsv_bench.cli.printing import columns, show
from tsv_bench.cli.sweep.asked import validation_is_asked
from tsv_bench.cli.sweep.command import Made, typed_command
from tsv_bench.cli.sweep.comparison import tables_of
from tsv_bench.cli.sweep.log_file import logged_to
from tsv_bench.cli.work.machine import set_up_machine
from tsv_bench.files import check_room
from tsv_bench.report.text.render import render_terminal
from tsv_bench.report.tracking import NoTracker, Weights
from tsv_bench.report.write_report import write_report

log = logging.getLogger(__name__)


def bench(config: DictConfig) -> Made:
    """Make one Run, or find it finished; return its file and its metric."""
    machine = set_up_machine(config)
    tracker = objects.make_tracker(config)
    factors = make_cache(config)
    validates = validation_is_asked(config)
    tracker.check()
    cell = make_cell(config, machine.devices)
    check_room(cell.runs, 10_000_000)
    finished = None if config.overwrite else find_finished(cell)
    there = finished is not None and not (validates and finished[1].validation is None)
    # Before a log begins: what is wrong with its weights leaves nothing behind.
    backbone = None if there else objects.make_backbone(config)
    single = HydraConfig.get().mode == RunMode.RUN
    with logged(cell) if single else nullcontext():  # the job of a sweep has a log of its own
        if there:
            (path, run), weights = finished, None
            log.info(f"{run.label}: already there, {path} (overwrite=true evaluates it again)")
        else:
            with cell.method.named_in_errors():
                path, run, weights = make(
                    config, replace(cell, backbone=backbone), finished,
                    validates=validates, factors=factors, merged_on=machine.all_devices,
                )  # fmt: skip
        if not isinstance(tracker, NoTracker):  # also of a Run that was there: one W&B run a job
            with tempfile.TemporaryDirectory() as folder:
                written = write_report(tables_of([path]), Path(folder))
                tracker.log_run(run, [plot for plot in written if plot.suffix == ".png"], weights)
    if single:
        # The Run of the individual models, if any, gives the normalized accuracy's interval.
        individual = find_runs(cell.folder, method="individual", seed=config.seed)
        tables = tables_of([path, *(p for p, _ in individual)])
        show(render_terminal(tables, columns(), layout=config.layout))
    return Made(files=[path], metric=run.validation)


def find_finished(cell: Cell) -> tuple[Path, Run] | None:
    """Return the cell's Run and its file, if it was made before."""
    path = cell.finished()
    return (path, load_run(path)) if path else None


def logged(cell: Cell) -> AbstractContextManager:
    """Log to the file beside all Runs."""
    return logged_to(cell.runs / "tsv-bench.log", typed_command.get() or "tsv-bench")


def make(
    config: DictConfig, cell: Cell, finished: tuple[Path, Run] | None, **how: Any
) -> tuple[Path, Run, Weights | None]:
    """Make the Run of a cell, or validate the ``finished`` one; ``how`` is for `make_run`.

    Returns its file, the Run and what writes its weights; None if they were not evaluated now.
    """
    path, run, served = make_run(
        cell,
        load=objects.make_loader(config, cell.backbone),
        check_data=partial(objects.check_data, config, cell.backbone, cell.all_tasks),
        make_heads=partial(objects.make_heads, config, cell.backbone, cell.all_tasks, cell.source),
        find_normalizer=partial(make_normalizer, config, cell, validates=how["validates"]),
        finished=finished,
        **how,
    )
    log.info(
        f"{run.label}: {100 * run.absolute:.1f}% absolute, {100 * run.normalized:.1f}% "
        f"normalized at alpha {run.alpha:g}{validated(run)} -> {path}"
    )
    if served is None:
        return path, run, None
    return path, run, partial(write_weights, run, cell.backbone.pretrained, served)


def validated(run: Run) -> str:
    """Return what the log says of validation."""
    return f", {100 * run.validation:.1f}% on validation" if run.validation is not None else ""


def make_cell(config: DictConfig, devices: Sequence[str]) -> Cell:
    """Return what is to be evaluated. Raises ValueError or OSError for a wrong configuration."""
    method = make_method(config)
    tasks, unseen = without_unseen(make_tasks(config.suite.tasks), config.unseen)
    method.check_tasks(tasks)
    check_unseen(method, tasks, unseen)
    evaluation = objects.make_evaluation(config, devices)
    check_fetched(config)
    fine_tunes = method.needs is not None and method.needs.fine_tunes
    return Cell(
        backbone=objects.name_backbone(config),
        suite=suite_name(config),
        tasks=tasks,
        method=method,
        source=objects.make_source(config, devices[0]),
        seed=config.seed,
        normalizer=config.normalizer,
        evaluation=evaluation,
        runs=Path(config.paths.runs),
        statistics=Path(config.paths.statistics),
        finetuning=objects.make_finetuning(config) if fine_tunes else None,
        unseen=unseen,
        corruptions=make_corruptions(config),
    )
