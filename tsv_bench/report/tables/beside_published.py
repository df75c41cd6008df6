"""Published figures beside our rows, and the notes that they need."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from tsv_bench.benchmark import published
from tsv_bench.benchmark.runs import Run
from tsv_bench.report.tables.row import Row


def has_published(run: Run, notes: list[str]) -> bool:
    """Return whether figures are published for the Run's suite.

    Adds a note if a published suite has the same name but other tasks.
    """
    tasks = published.suites().get(run.suite)
    if tasks is None or set(tasks) == set(run.tasks):
        return tasks is not None
    odd = min(set(tasks) ^ set(run.tasks))
    notes.append(
        f"no published figures: they are of the {len(tasks)} tasks of {run.suite}, and these "
        f"{len(run.tasks)} are others, first {odd!r}."
    )
    return False


def beside_published(row: Row, notes: list[str]) -> Row:
    """Return the row with the published figure of the same method and knobs, if there is one.

    Adds a note if figures are published for other knobs only.
    """
    run = row.runs[0]
    found = published.find(run.backbone, run.suite, row.method)
    figure, same = published.choose(found, row.generation)
    if other := published.other_knobs(row.method, run.knobs):
        knobs = ", ".join(f"{name}={json.dumps(value)}" for name, value in other.items())
        if figure:
            notes.append(f"{row.label}: no published figure, there are those of {knobs}.")
        return row
    return replace(row, published=figure, comparable=same)


def source_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return notes on the published figures of these rows.

    They name the sources, the generations of checkpoints, and the figures of other checkpoints
    than ours, which cannot be compared.
    """
    shown: dict[tuple[str, str], dict[str, None]] = {}
    bracketed: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if figure := row.published:
            shown.setdefault((figure.source, figure.generation), {})[row.label] = None
            if not row.comparable:
                bracketed.setdefault((figure.generation, row.generation), {})[row.label] = None
    all_labels = dict.fromkeys(row.label for row in rows)
    notes = [
        f"published, {generation} checkpoints: {source}{_of(labels, all_labels)}."
        for (source, generation), labels in shown.items()
    ]
    notes += [
        f"in brackets, no difference taken: published figures of {theirs} checkpoints beside ours "
        f"of {ours}{_of(labels, all_labels)}."
        for (theirs, ours), labels in bracketed.items()
    ]
    notes += [
        f"{generation} checkpoints: {published.generations()[generation]}."
        for generation in dict.fromkeys(generation for _, generation in shown)
    ]
    return tuple(notes)


def _of(labels: Collection[str], all_labels: Collection[str]) -> str:
    """Return " (label, label)", or "" if these are all rows."""
    return "" if len(labels) == len(all_labels) else f" ({', '.join(labels)})"
