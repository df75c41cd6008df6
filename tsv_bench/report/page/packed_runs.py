"""Runs packed for the page: a value that several Runs share is stored once."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tsv_bench.benchmark import published
from tsv_bench.benchmark.runs import Run
from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.beside_published import beside_published, has_published
from tsv_bench.report.tables.edges import alpha_at_edge, is_at_edge, knob_candidates
from tsv_bench.report.tables.row import Evaluated, Row, row_labels, unit_of
from tsv_bench.report.tables.statistics import Estimate
from tsv_bench.report.tables.table import Table

# Fields whose values go into the pool.
POOLED = (
    "knobs", "tasks", "alpha_curve", "test", "val", "normalizer", "seconds", "task_knobs",
    "checkpoints", "data", "variants", "versions", "router", "unseen", "corrupted", "details",
)  # fmt: skip


class Pool:
    """Distinct values, each with a number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, value: Any) -> int:
        """Return the value's number; a new value is added."""
        text = json.dumps(value)  # unsorted: the order of tasks is part of the value
        if text not in self._numbers:
            self._numbers[text] = len(self.values)
            self.values.append(value)
        return self._numbers[text]


def pack_runs(evaluated: Sequence[Evaluated], tables: Sequence[Table]) -> dict[str, Any]:
    """Return {"pool": values, "runs": one dict a Run}; shared values are numbers of the pool's.

    A Run is its fields and what the tables say of it: its label and intervals, the published
    figure beside it, and ``in_table``, false where a newer Run or other images left it out of
    ``tables``. Accuracies are in [0, 1].
    """
    pool = Pool()
    labels = _labels([run for run, _ in evaluated])
    shown = {id(run) for table in tables for run in table.runs}
    runs = []
    for (run, correct), label in zip(evaluated, labels, strict=True):
        absolute, normalized = Estimate(run.absolute), Estimate(run.normalized)
        row = Row(label=label, runs=(run,), correct=None, absolute=absolute, normalized=normalized)
        content = _finite(asdict(run))
        if any(task not in run.normalizer for task in run.tasks):
            content["normalized"] = None
        settings = content.pop("settings")
        content["settings"] = {name: pool.number(value) for name, value in settings.items()}
        for task, interval in row.accuracy_intervals.items():
            content["test"][task]["interval"] = [interval.low, interval.high]
        content["unseen_mean"] = run.unseen and run.unseen.absolute
        content["corrupted_mean"] = run.corrupted and run.corrupted.absolute
        content |= {name: pool.number(content[name]) for name in POOLED}
        content["label"] = label
        content["served"] = row.served
        content["unit"] = unit_of([run])
        content["data_seen"] = row.data
        content["at_edge"] = alpha_at_edge(run)
        content["knobs_at_edge"] = pool.number(_edges(run))
        content["interval"] = _interval(run, correct)
        content["published"] = pool.number(_published(row))
        content["correct"] = _bits(run, correct)
        content["in_table"] = id(run) in shown
        runs.append(content)
    return {"pool": pool.values, "runs": runs}


def pack_bits(bits: np.ndarray) -> str:
    """Pack [images] bools into base64, the first image in the highest bit of the first byte."""
    return base64.b64encode(np.packbits(np.asarray(bits, bool)).tobytes()).decode("ascii")


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return labels with the knobs that tell Runs of one method and suite apart."""
    labels = [""] * len(runs)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault((run.backbone, run.suite), []).append(index)
    for indices in groups.values():
        for index, label in zip(indices, row_labels([runs[i] for i in indices]), strict=True):
            labels[index] = label
    return labels


def _interval(run: Run, correct: Mapping[str, np.ndarray] | None) -> list[float] | None:
    """Return the 95% interval of absolute accuracy over images; None without correctness."""
    if correct is None:
        return None
    images = statistics.absolute({task: correct[task][None] for task in run.tasks}).images
    return [images.low, images.high]


def _bits(run: Run, correct: Mapping[str, np.ndarray] | None) -> dict[str, str] | None:
    return None if correct is None else {task: pack_bits(correct[task]) for task in run.tasks}


def _edges(run: Run) -> dict[str, list[str]]:
    """Return task -> its chosen knobs whose value is at the edge of their candidates."""
    candidates = knob_candidates(run)
    return {
        task: [knob for knob, value in chosen.items() if is_at_edge(value, candidates)]
        for task, chosen in run.task_knobs.items()
    }


def _published(row: Row) -> dict[str, Any] | None:
    """Return the published figure beside a row of one Run, as in the tables.

    With the accuracy of each task if the source gives them; None if there is nothing to say.
    """
    notes: list[str] = []
    (run,) = row.runs
    if has_published(run, notes):
        row = beside_published(row, notes)
    if row.published is None:
        return {"notes": notes} if notes else None
    return {
        "notes": notes,
        "figure": row.published._asdict() | {"origin": row.published.origin},
        "ours": row.generation,
        "comparable": row.comparable,
        "differences": row.differences,
        "tasks": published.accuracies(run.backbone, run.suite, run.method),
    }


def _finite(value: Any) -> Any:
    """Replace nan and infinity, which json lacks, by None."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
