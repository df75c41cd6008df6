"""Comparisons of two methods: a sheet of the means, a sheet of the tasks, and csv."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tsv_bench.files import replace_text
from tsv_bench.report.tables.row import unit_of
from tsv_bench.report.tables.statistics import NUM_RESAMPLES, Estimate, Interval
from tsv_bench.report.tables.two_methods import Compared, OfTask, Paired
from tsv_bench.report.text.csv_records import bounds_record, to_csv
from tsv_bench.report.text.numbers import bounds, made_of, percent, signed
from tsv_bench.report.text.sheet import Sheet, markdown, terminal, wrap
from tsv_bench.wording.escaping import escape_markdown


def write_comparison(
    compared: Sequence[Compared], refused: Sequence[str], out_folder: Path
) -> list[Path]:
    """Write compare.md and compare.csv; return their paths."""
    texts = {"md": comparison_markdown(compared, refused), "csv": comparison_csv(compared)}
    paths = [Path(out_folder) / f"compare.{end}" for end in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        replace_text(path, text)
    return paths


def comparison_markdown(compared: Sequence[Compared], refused: Sequence[str] = ()) -> str:
    """Render comparisons, and the reasons for those that were refused, as markdown."""
    parts = [markdown(sheet) for one in compared for sheet in comparison_sheets(one)]
    notes = "\n".join(f"- not compared, {escape_markdown(text)}" for text in refused)
    parts += [notes] if refused else []
    return "\n\n".join(parts) + "\n"


def comparison_terminal(
    compared: Sequence[Compared], refused: Sequence[str] = (), width: int = 100
) -> str:
    """Render comparisons, and the reasons for those that were refused, as aligned text."""
    parts = [terminal(sheet, width) for one in compared for sheet in comparison_sheets(one)]
    parts += [wrap(f"not compared, {text}", width) for text in refused]
    return "\n\n\n".join(parts) + "\n"


def comparison_sheets(compared: Compared) -> list[Sheet]:
    """Return the sheet of the means and the sheet of the tasks."""
    labels = [compared.first.label, compared.second.label]
    run, seeds = compared.first.runs[0], compared.first.seeds
    where = f"{run.backbone} on {run.suite}"
    outcomes = Counter(task.outcome for task in compared.tasks.values())
    counts = ", ".join(
        f"{number} {name if number == 1 else plural}"
        for name, plural in (("win", "wins"), ("tie", "ties"), ("loss", "losses"))
        for number in [outcomes[name]]
    )
    total = sum(task.num_images for task in compared.tasks.values())
    unit = unit_of([*compared.first.runs, *compared.second.runs])
    one = unit.removesuffix("s")
    means = Sheet(
        title=f"{labels[0]} against {labels[1]}: {where}, {len(compared.tasks)} tasks",
        caption=f"Percent, {total:,} test {unit}; "
        f"{made_of([*compared.first.runs, *compared.second.runs])}",
        header=["mean over tasks", *labels, "difference", f"over {unit}",
                f"over {len(seeds)} seeds" if len(seeds) > 1 else "over seeds", "p"],
        rows=[
            ["absolute", *_means(compared.absolute)],
            ["normalized", *_means(compared.normalized)],
        ],
        notes=[
            f"Paired on the same {unit}. 95% intervals: over {unit} by {NUM_RESAMPLES:,} bootstrap "
            f"resamples within each task, over seeds Student's t.",
            f"p: two-sided, that neither method is better on these {unit}, by {NUM_RESAMPLES:,} "
            f"random exchanges of the two methods' outcomes {one} by {one} (all seeds of an "
            f"{one} together) within each task.",
            *compared.notes,
        ],
    )  # fmt: skip
    by_task = Sheet(
        title=f"{labels[0]} against {labels[1]}, by task: {where}",
        caption=f"{counts} for {labels[0]}. Win and loss: the interval of the difference leaves "
        f"zero out. Right in one only: {unit}{' of all seeds' if len(seeds) > 1 else ''}.",
        header=["task", *labels, "difference", "interval", "outcome",
                *(f"only {label}" for label in labels)],
        rows=[_task_cells(task) for task in compared.tasks.values()],
        notes=[
            "95% intervals: of accuracies Wilson's, of the paired difference Bonett and Price's; "
            f"over {unit}, and of each task alone, not corrected for their number.",
        ],
    )  # fmt: skip
    return [means, by_task]


def _means(paired: Paired) -> list[str]:
    texts = [_value(paired.first), _value(paired.second)]
    difference = paired.difference
    texts.append("-" if math.isnan(difference.value) else signed(difference.value, 2))
    texts += [_signed_bounds(difference.images), _signed_bounds(difference.seeds)]
    smallest = 1 / (NUM_RESAMPLES + 1)
    if paired.p is None:
        return [*texts, "-"]
    return [*texts, f"{paired.p:.4f}" if paired.p > smallest else f"<{smallest:.4f}"]


def _value(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "-"
    text = percent(estimate.value)
    return f"{text} {bounds(estimate.images)}" if estimate.images else text


def _task_cells(task: OfTask) -> list[str]:
    return [
        task.label,
        f"{percent(task.first)} {bounds(task.first_interval)}",
        f"{percent(task.second)} {bounds(task.second_interval)}",
        signed(task.difference),
        _signed_bounds(task.interval),
        task.outcome,
        str(task.only_first),
        str(task.only_second),
    ]


def _signed_bounds(interval: Interval | None) -> str:
    return f"[{signed(interval.low)}, {signed(interval.high)}]" if interval else "-"


def comparison_csv(compared: Sequence[Compared]) -> str:
    """Return a line for each mean and each task as csv: fractions in full precision."""
    records: list[dict[str, Any]] = []
    for one in compared:
        run = one.first.runs[0]
        start = {"backbone": run.backbone, "suite": run.suite, "table": one.name,
                 "first": one.first.label, "second": one.second.label,
                 "seeds": " ".join(map(str, one.first.seeds))}  # fmt: skip
        for name, paired in (("absolute", one.absolute), ("normalized", one.normalized)):
            record = start | {"what": name, "first_value": paired.first.value}
            record |= bounds_record("first_images", paired.first.images)
            record |= {"second_value": paired.second.value}
            record |= bounds_record("second_images", paired.second.images)
            record |= {"difference": paired.difference.value}
            record |= bounds_record("difference_images", paired.difference.images)
            record |= bounds_record("difference_seeds", paired.difference.seeds)
            records.append(record | {"p": "" if paired.p is None else paired.p})
        for name, task in one.tasks.items():
            record = start | {"what": name, "first_value": task.first}
            record |= bounds_record("first_images", task.first_interval)
            record |= {"second_value": task.second}
            record |= bounds_record("second_images", task.second_interval)
            record |= {"difference": task.difference}
            record |= bounds_record("difference_images", task.interval)
            records.append(
                record
                | {"outcome": task.outcome, "only_first": task.only_first}
                | {"only_second": task.only_second, "num_images": task.num_images}
            )
    return to_csv(records)
