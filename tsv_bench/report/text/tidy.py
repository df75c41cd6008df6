"""Tidy csv of Runs, for pandas and the like: one row for each value that was measured.

runs.csv has a row for each Run and task, alphas.csv one for each Run and alpha that its search
tried. Both have a column for each knob, and name the Run by its fingerprint.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from tsv_bench.benchmark.runs import Run
from tsv_bench.report.tables.edges import alpha_at_edge
from tsv_bench.report.tables.row import as_yaml
from tsv_bench.report.tables.table import Table
from tsv_bench.report.text.csv_records import to_csv

OF_RUN = ("backbone", "suite", "method", "label", "seed", "fingerprint")
RUNS = (*OF_RUN, "task", "accuracy", "correct", "total", "individual", "normalized",
        "validation_accuracy", "alpha", "alpha_at_edge", "data", "merge_seconds", "peak_memory",
        "stored_bytes", "commit", "created")  # fmt: skip
ALPHAS = (*OF_RUN, "alpha", "validation_normalized", "chosen")


def runs_csv(tables: Sequence[Table]) -> str:
    """Return a row for each Run in the tables and each of its tasks as csv.

    Accuracies are in [0, 1]; ``normalized`` is divided by ``individual``, that of the task's own
    model. Columns ``knob_...`` hold the knobs, and ``chosen_...`` those that validation chose
    for the task: a value that is unset is null, and a knob that the method does not have is empty.
    """
    return to_csv([record for run in _runs(tables) for record in _of_tasks(*run)], RUNS)


def alphas_csv(tables: Sequence[Table]) -> str:
    """Return a row for each Run in the tables and each alpha that was tried on validation as csv.

    A Run whose alpha is fixed has none.
    """
    return to_csv([record for run in _runs(tables) for record in _of_alphas(*run)], ALPHAS)


FILES = {"runs.csv": runs_csv, "alphas.csv": alphas_csv}


def _runs(tables: Sequence[Table]) -> Iterator[tuple[str, Run, str]]:
    """Yield the Runs, each between its row's label and what data the row's method saw."""
    for table in tables:
        for row in table.rows:
            yield from ((row.label, run, row.data) for run in row.runs)


def _of_run(label: str, run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in OF_RUN} | {"label": label}


def _of_tasks(label: str, run: Run, data: str) -> Iterator[dict[str, Any]]:
    for task, score in run.test.items():
        individual = run.normalizer.get(task)
        chosen = run.task_knobs.get(task, {})
        yield _of_run(label, run) | {
            "task": task,
            "accuracy": score.accuracy,
            "correct": score.correct,
            "total": score.total,
            "individual": _cell(individual),
            "normalized": _cell(individual and score.accuracy / individual),
            "validation_accuracy": run.val[task].accuracy if task in run.val else "",
            "alpha": run.alpha,
            "alpha_at_edge": as_yaml(alpha_at_edge(run)),
            "data": data,
            "merge_seconds": _cell(run.seconds.get("merge")),
            "peak_memory": run.peak_memory,
            "stored_bytes": _cell(run.stored_bytes),
            "commit": run.commit,
            "created": run.created,
            **_knobs("knob", run.knobs),
            **_knobs("chosen", chosen),
        }


def _of_alphas(label: str, run: Run, data: str) -> Iterator[dict[str, Any]]:
    for point in run.alpha_curve:
        yield _of_run(label, run) | {
            "alpha": point["alpha"],
            "validation_normalized": point["normalized"],
            "chosen": as_yaml(point["alpha"] == run.alpha),
            **_knobs("knob", run.knobs),
        }


def _knobs(start: str, knobs: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{start}_{name}": value if _is_number(value) else as_yaml(value)
        for name, value in knobs.items()
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> Any:
    return "" if value is None else value
