"""Make the Run of one cell of the benchmark: checkpoints, vectors, evaluation, record."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path

from torch import Tensor

from tsv_bench import bars, provenance
from tsv_bench.benchmark.beyond.generalize import generalize
from tsv_bench.benchmark.beyond.unseen import check_shared, own_models
from tsv_bench.benchmark.cells.cell import Cell
from tsv_bench.benchmark.doubts import doubts
from tsv_bench.benchmark.evaluate import Accuracies, evaluate_method, open_task_vectors, stage
from tsv_bench.benchmark.given.observe import Given, draw, observe
from tsv_bench.benchmark.runs import Run, load_correct, save_run
from tsv_bench.benchmark.validate import validated
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.data import SPLITS, Split, Task
from tsv_bench.files import check_room, leased
from tsv_bench.methods.forms import Served
from tsv_bench.methods.needs import PRETRAINED
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.task_vectors.task_vector import Weights

log = logging.getLogger(__name__)


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
    evaluation, seconds, before = cell.evaluation, {}, cell.written()
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
    # What a method keeps until its Run is there is of one process.
    with leased(unfinished.folder) if cell.method.needs else nullcontext():
        finished = cell.made_since(before) or finished
        if finished and not (validates and finished[1].validation is None):
            return *finished, None
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
            run = validated(run, *common, given.seen_rows)
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
