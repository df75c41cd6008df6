"""Two methods compared on the same images: paired differences, intervals and p-values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tsv_bench.benchmark.runs import Run
from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.notes import check_same_images, precision_of
from tsv_bench.report.tables.row import Evaluated, Row, build_row, normalizer_bits, row_labels
from tsv_bench.report.tables.row_names import find_row
from tsv_bench.report.tables.statistics import Estimate, Interval
from tsv_bench.report.tables.table import RowKey, Seeds, group_runs, individual_of, newest_by_row


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The means over tasks of two methods, and the first minus the second."""

    first: Estimate
    second: Estimate
    difference: Estimate
    p: float | None  # that both are equally good; None without the correctness of the normalizer


@dataclass(frozen=True, kw_only=True)
class OfTask:
    """One task of two methods; accuracies in [0, 1], counts of images over all seeds."""

    label: str
    num_images: int  # of one seed
    first: float
    second: float
    first_interval: Interval
    second_interval: Interval
    difference: float
    interval: Interval
    only_first: int  # images that the first alone has right: McNemar's cells
    only_second: int

    @property
    def outcome(self) -> str:
        """ "win" or "loss" of the first method if the interval excludes zero, else "tie"."""
        if self.interval.low > 0:
            return "win"
        return "loss" if self.interval.high < 0 else "tie"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two rows of one table compared on the seeds that both have."""

    name: str  # of the table
    first: Row
    second: Row
    absolute: Paired
    normalized: Paired
    tasks: dict[str, OfTask]
    notes: tuple[str, ...]


def compare(
    evaluated: Sequence[Evaluated], names: Sequence[str]
) -> tuple[list[Compared], list[str]]:
    """Compare two rows in every table that has both.

    A name is a method, or "method:knob=value" if the method has several rows. Returns the
    comparisons, and a sentence for each table where the two rows cannot be compared.
    Raises ValueError if a name fits no row or several, or if no table compares the two.
    """
    if isinstance(names, str) or len(names) != 2 or names[0] == names[1]:
        raise ValueError(
            f"compare={names!r} is not a list of two rows. Name two, as in compare=[tsv_merge,ties]"
        )
    groups = group_runs(evaluated)
    notes: dict[str, list[str]] = {name: [] for name in groups}
    rows = {name: newest_by_row(group, notes[name]) for name, group in groups.items()}
    keys = [find_row(text, rows) for text in names]
    compared, refused = [], []
    for name, by_row in rows.items():
        pair = [of_tables[name] for of_tables in keys if name in of_tables]
        if len(pair) < 2:
            continue
        try:
            compared.append(_compare(name, by_row, pair, notes[name]))
        except ValueError as error:
            refused.append(f"{name}: {error}")
    if not compared and not refused:
        where = "; ".join(f"{t} is in {', '.join(k)}" for t, k in zip(names, keys, strict=True))
        raise ValueError(
            f"no backbone and suite has Runs of both {names[0]} and {names[1]}: {where}."
        )
    if not compared:
        raise ValueError("nothing to compare. " + " ".join(refused))
    return compared, refused


def _compare(
    name: str, by_row: Mapping[RowKey, Seeds], keys: Sequence[RowKey], notes: Sequence[str]
) -> Compared:
    if keys[0] == keys[1]:
        raise ValueError("both names are the same row; name two rows.")
    both = [by_row[key] for key in keys]
    seeds = sorted(set(both[0]) & set(both[1]))
    labels = dict(zip(by_row, row_labels([s[min(s)][0] for s in by_row.values()]), strict=True))
    first_label, second_label = (labels[key] for key in keys)
    if not seeds:
        raise ValueError(
            f"{first_label} and {second_label} have no fine-tuning seed in common: "
            f"{', '.join(map(str, sorted(both[0])))} and {', '.join(map(str, sorted(both[1])))}."
        )
    for seed in seeds:
        _check_alike(*(side[seed][0] for side in both))
    for label, side in zip((first_label, second_label), both, strict=True):
        for seed in seeds:
            if side[seed][1] is None:
                raise ValueError(
                    f"the per-image correctness of {label}, seed {seed} "
                    f"({side[seed][0].fingerprint}), is lost; run it again with overwrite=true."
                )
    about: dict[str, list[str]] = {}
    individual = individual_of(by_row)
    first, second = (
        build_row(labels[key], [side[seed] for seed in seeds], individual, about)
        for key, side in zip(keys, both, strict=True)
    )
    said = [f"{', '.join(having)}: {text}" for text, having in about.items()]
    starts = tuple(f"{row.runs[0].label}, seed " for row in (first, second))
    newest = [note for note in notes if note.startswith(starts)]
    if len(both[0]) != len(both[1]) or len(seeds) < len(both[0]):
        said.append(
            f"compared on the seeds that both have, {', '.join(map(str, seeds))}, "
            f"of {len(both[0])} and {len(both[1])}."
        )
    precisions = [", ".join(dict.fromkeys(map(precision_of, row.runs))) for row in (first, second)]
    if precisions[0] != precisions[1]:
        said.append(
            f"evaluated in different precisions: {first.label} in {precisions[0]}, "
            f"{second.label} in {precisions[1]}."
        )
    scores = statistics.image_differences(first.correct, second.correct)
    return Compared(
        name=name,
        first=first,
        second=second,
        absolute=Paired(
            first=first.absolute,
            second=second.absolute,
            difference=statistics.difference(first.correct, second.correct),
            p=statistics.sign_flip_p(scores),
        ),
        normalized=_normalized(first, second, individual, scores),
        tasks={task: _of_task(task, first, second, scores[task]) for task in first.correct},
        notes=(*newest, *said),
    )


def _normalized(
    first: Row, second: Row, individual: Seeds, scores: Mapping[str, np.ndarray]
) -> Paired:
    """Compare normalized accuracies; without individual models' Runs, over seeds alone."""
    bits = [normalizer_bits(row.runs, individual) for row in (first, second)]
    if bits[0] is not None and bits[1] is not None:
        of_individual = {task: b.mean(axis=-1, keepdims=True) for task, b in bits[0].items()}
        return Paired(
            first=first.normalized,
            second=second.normalized,
            difference=statistics.normalized_difference(first.correct, second.correct, bits[0]),
            p=statistics.sign_flip_p({t: s / of_individual[t] for t, s in scores.items()}),
        )
    by_seed = np.array(
        [a.normalized - b.normalized for a, b in zip(first.runs, second.runs, strict=True)]
    )
    known = all(task in run.normalizer for row in (first, second)
                for run in row.runs for task in run.tasks)  # fmt: skip
    value = float(by_seed.mean()) if known else float("nan")
    seeds = statistics.over_seeds(by_seed) if known else None
    return Paired(
        first=first.normalized,
        second=second.normalized,
        difference=Estimate(value, None, seeds),
        p=None,
    )


def _of_task(task: str, first: Row, second: Row, scores: np.ndarray) -> OfTask:
    return OfTask(
        label=first.runs[0].tasks[task],
        num_images=scores.shape[-1],
        first=first.accuracy[task],
        second=second.accuracy[task],
        first_interval=first.accuracy_intervals[task],
        second_interval=second.accuracy_intervals[task],
        difference=float(scores.mean()),
        interval=statistics.task_difference(scores),
        only_first=int((scores > 0).sum()),
        only_second=int((scores < 0).sum()),
    )


def _check_alike(first: Run, second: Run) -> None:
    """Check that two Runs of one seed share test images, variants and checkpoints.

    Raises ValueError naming the first of these that differs.
    """
    check_same_images(first, second)
    both = f"{first.label} and {second.label}, seed {first.seed}, cannot be compared"
    for task in first.tasks:
        variants = [run.variants.get(task) or "the default" for run in (first, second)]
        if variants[0] != variants[1]:
            raise ValueError(f"{both} on task {task!r}: {variants[0]} against {variants[1]}.")
    for part in ("pretrained", *first.tasks):
        checkpoints = [run.checkpoints.get(part, {}) for run in (first, second)]
        generations = [c.get("generation", "unknown") for c in checkpoints]
        hashes = [c.get("sha256", "unknown") for c in checkpoints]
        if generations[0] != generations[1] or hashes[0] != hashes[1]:
            kind = "generation" if generations[0] != generations[1] else "file"
            texts = [f"{g} (sha256 {h[:12]})" for g, h in zip(generations, hashes, strict=True)]
            raise ValueError(
                f"{both}: their {part!r} checkpoints are not of one {kind}, {texts[0]} against "
                f"{texts[1]}. Run both on the same checkpoints."
            )
