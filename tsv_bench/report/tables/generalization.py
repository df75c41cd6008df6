"""What rows say of unseen tasks and of corrupted images, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tsv_bench.benchmark.published import is_published
from tsv_bench.benchmark.runs import Corrupted, Run
from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.row import Evaluated, Row
from tsv_bench.report.tables.statistics import Estimate, Interval


def with_generalization(
    row: Row, evaluated: Sequence[Evaluated], individual: Mapping[int, Evaluated]
) -> Row:
    """Return the row with how its Runs did on unseen tasks and on corrupted images, if they say.

    ``evaluated``: the row's Runs; ``individual``: the individual models' Run of each seed.
    """
    if all(run.unseen for run in row.runs):
        row = replace(row, **_unseen(row.runs, evaluated, individual))
    if all(run.corrupted for run in row.runs):
        row = replace(row, corrupted=_corrupted(row.runs, evaluated))
    return row


def unseen_accuracy(row: Row) -> dict[str, float]:
    """Return the accuracy on each unseen task, the mean over seeds; {} without unseen tasks."""
    if row.unseen is None:
        return {}
    scores = [run.unseen.test for run in row.runs]
    return {t: float(np.mean([s[t].accuracy for s in scores])) for t in scores[0]}


def unseen_intervals(row: Row) -> dict[str, Interval]:
    """Return Wilson's 95% interval of the accuracy on each unseen task."""
    total = {t: row.runs[0].unseen.test[t].total for t in unseen_accuracy(row)}
    return {t: statistics.wilson(a, total[t]) for t, a in unseen_accuracy(row).items()}


def unseen_tasks(rows: Sequence[Row]) -> dict[str, str]:
    """Return task -> label of the unseen tasks of these rows; {} if there are none."""
    return next((row.runs[0].unseen.tasks for row in rows if row.unseen), {})


def corruptions(rows: Sequence[Row]) -> list[str]:
    """Return the corruptions of these rows in the order of their Runs."""
    return list(dict.fromkeys(name for row in rows for name in row.corrupted if name))


def severity(rows: Sequence[Row]) -> int:
    """Return the severity of the corruptions of these rows, of which there are some."""
    return next(row.runs[0].corrupted.severity for row in rows if row.corrupted)


def _unseen(
    runs: Sequence[Run], evaluated: Sequence[Evaluated], individual: Mapping[int, Evaluated]
) -> dict[str, Estimate]:
    tasks = list(runs[0].unseen.tasks)
    absolute, normalized = (
        statistics.without_images([getattr(run.unseen, name) for run in runs])
        for name in ("absolute", "normalized")
    )
    bits = statistics.stacked([correct for _, correct in evaluated], tasks)
    if bits is not None:
        absolute = statistics.absolute(bits)
        partners = [individual.get(run.seed) for run in runs]
        if all(_normalizes(one, run) for one, run in zip(partners, runs, strict=True)):
            theirs = statistics.stacked([correct for _, correct in partners], tasks)
            if theirs is not None:
                normalized = statistics.normalized(bits, theirs)
    return {"unseen": absolute, "unseen_normalized": normalized}


def _normalizes(individual: Evaluated | None, run: Run) -> bool:
    """Return whether the unseen tasks of a Run were divided by the accuracies of this one."""
    if individual is None or individual[0].unseen is None or is_published(run.normalizer_source):
        return False
    return individual[0].unseen.normalizer == run.unseen.normalizer


def _corrupted(runs: Sequence[Run], evaluated: Sequence[Evaluated]) -> dict[str, Estimate]:
    """Return corruption -> mean accuracy over tasks; "" is the mean over all corruptions.

    Those that not all Runs have are left out.
    """
    names = [n for n in runs[0].corrupted.test if all(n in run.corrupted.test for run in runs)]
    tasks = list(runs[0].tasks)
    means = {
        name: [np.mean([run.corrupted.test[name][t].accuracy for t in tasks]) for run in runs]
        for name in names
    }
    means[""] = [np.mean([means[name][i] for name in names]) for i in range(len(runs))]
    found = {name: statistics.without_images(values) for name, values in means.items()}
    kept = [correct for _, correct in evaluated]
    bits = {}
    for name in names:
        keys = [Corrupted.key(name, task) for task in tasks]
        of_name = statistics.stacked(kept, keys)
        if of_name is None:
            return found
        bits[name] = dict(zip(tasks, of_name.values(), strict=True))
        found[name] = statistics.absolute(bits[name])
    return found | {"": statistics.over_conditions(list(bits.values()))}
