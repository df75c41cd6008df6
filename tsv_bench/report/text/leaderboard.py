"""The leaderboard: methods by mean accuracy, with the time, memory and storage that each takes.

Methods that serve all tasks the same model stand in one block, methods whose router chooses an
expert for each image in the next. Methods that serve each task a model of its own must be told the
task of an image, and stand in a third. Each is divided by what data its methods saw. The pretrained
and the fine-tuned models are the ends of the scale, not methods.
"""

import math
from collections.abc import Sequence

from tsv_bench.benchmark import published
from tsv_bench.benchmark.runs import DATA_KINDS, Run
from tsv_bench.report.tables.edges import EDGE, chosen_for_suite, is_at_edge, knob_candidates
from tsv_bench.report.tables.orderings import (
    ALL_PERMUTATIONS_OF,
    PUBLISHED_ON,
    Ordering,
    Tau,
    find_orderings,
)
from tsv_bench.report.tables.row import Row
from tsv_bench.report.tables.statistics import Estimate, Interval
from tsv_bench.report.tables.table import Table
from tsv_bench.report.text.csv_records import row_record, to_csv
from tsv_bench.report.text.numbers import alpha_text, made_of, percent, signed
from tsv_bench.report.text.sheet import Sheet
from tsv_bench.wording.escaping import visible

SERVED = {
    "one": "one model for all tasks",
    "routed": "router chooses",
    "own": "one for each task",
}
REFERENCES = "references"
# How a method serves, and what data it saw, unless that is none.
BLOCKS = (
    *(
        text if kind == "none" else f"{text}, {kind}"
        for text in SERVED.values()
        for kind in DATA_KINDS
    ),
    REFERENCES,
)
NUMBERS = ("absolute", "seeds", "normalized", "seeds", "alpha", "sec", "GB", "MB/task")


def block(row: Row) -> str:
    """Return the block of `BLOCKS` that a row belongs to; as one model if its Runs do not say."""
    if row.is_reference:
        return REFERENCES
    served = SERVED[row.served or "one"]
    return served if row.data_kind == "none" else f"{served}, {row.data_kind}"


def in_order(table: Table) -> list[Row]:
    """Return the rows by block, then by mean absolute accuracy, the highest first."""
    return sorted(table.rows, key=lambda row: (BLOCKS.index(block(row)), -row.absolute.value))


def leaderboard_sheet(table: Table) -> Sheet:
    """Return the leaderboard of one table as texts."""
    rows = in_order(table)
    lines = []
    header = ["method", *(["data"] if table.sees_data else []), *NUMBERS]
    for name in BLOCKS:
        if having := [row for row in rows if block(row) == name]:
            lines.append([name, *[""] * (len(header) - 1)])
            lines += [_cells(row, table.sees_data) for row in having]
    orders = find_orderings(table)
    notes = [*table.notes, *_task_knobs(rows), *(_order_note(order) for order in orders)]
    if not orders:
        notes.append(
            "no order to compare with the published one: fewer than three of its methods are here."
        )
    notes += [
        f"{order.generation} checkpoints: {published.generations()[order.generation]}. "
        f"Figures: {' and '.join(order.sources)}.{_quoted(order)}"
        for order in orders
    ]
    return Sheet(
        title=f"{table.title}: leaderboard",
        caption=f"Percent, by absolute accuracy; ± half a 95% interval, first over "
        f"{table.num_images:,} test {table.unit}, then over seeds; {made_of(table.runs)} A "
        f"method that serves one model for each task must know the task at inference. sec: of the "
        f"merge alone. GB: peak resident memory of the process during the Run. MB/task: stored "
        f"beside the pretrained backbone, over the number of tasks."
        + (" data: the images of each task that a method saw." if table.sees_data else ""),
        header=header,
        rows=lines,
        notes=notes,
    )


def _cells(row: Row, data: bool) -> list[str]:
    seconds, stored = merge_seconds(row), row.stored_per_task
    return [
        f" {row.label}",
        *([row.data] if data else []),
        *_estimate(row.absolute),
        *_estimate(row.normalized),
        alpha_text(row),
        "-" if seconds is None else f"{seconds:.1f}" if seconds < 100 else f"{seconds:.0f}",
        f"{peak_memory(row) / 1e9:.2f}" if peak_memory(row) else "-",
        "-" if stored is None else f"{stored / 1e6:.1f}",
    ]


def _estimate(estimate: Estimate) -> list[str]:
    if math.isnan(estimate.value):
        return ["-", "-"]
    images = f" ±{_half(estimate.images)}" if estimate.images else ""
    seeds = f"±{_half(estimate.seeds)}" if estimate.seeds else "-"
    return [f"{percent(estimate.value)}{images}", seeds]


def _half(interval: Interval) -> str:
    return percent((interval.high - interval.low) / 2)


def merge_seconds(row: Row) -> float | None:
    """Return the wall time of merging, the mean over seeds; None if the Runs merged nothing."""
    found = [run.seconds["merge"] for run in row.runs if "merge" in run.seconds]
    return math.fsum(found) / len(found) if found else None


def peak_memory(row: Row) -> int:
    """Return the peak resident memory in bytes, the highest of the seeds; 0 if unknown."""
    return max(run.peak_memory for run in row.runs)


def _task_knobs(rows: Sequence[Row]) -> list[str]:
    """Return notes on the knobs that methods choose on validation, one value a seed."""
    notes = []
    for row in rows:
        tasks = row.runs[0].tasks
        knobs = dict.fromkeys(
            knob for run in row.runs for chosen in run.task_knobs.values() for knob in chosen
        )
        for knob in knobs:
            texts = []
            for task, label in tasks.items():
                values = [_chosen(run, task, knob) for run in row.runs]
                values = values[:1] if len(set(values)) == 1 else values
                texts.append(f"{label} {'/'.join(values)}")
            seeds = f", seeds {'/'.join(map(str, row.seeds))}" if len(row.seeds) > 1 else ""
            whom = "each task"
            if chosen_for_suite(row.runs[0]):
                whom, texts = "the suite", ["/".join(values)]  # the last task's, as all others'
            notes.append(f"{row.label}: {knob} chosen for {whom}{seeds}: {', '.join(texts)}.")
    return notes


def _chosen(run: Run, task: str, knob: str) -> str:
    """Return the value of a knob that was chosen for a task: "0.3", or "0.2 edge"."""
    value = run.task_knobs.get(task, {}).get(knob, "-")
    mark = f" {EDGE}" if is_at_edge(value, knob_candidates(run)) else ""
    return visible(str(value)) + mark


def _order_note(order: Ordering) -> str:
    """Return 'order against the published one on ...: Kendall's tau-b +0.79 (...), ...'."""
    labels = published.backbones()
    where = f"{labels[PUBLISHED_ON[0]]}, {len(published.suites()[PUBLISHED_ON[1]])} tasks"
    parts = []
    if order.merged:
        parts.append(f"{_tau(order.merged)} over the {order.merged.num} methods of one model")
    if order.merged is None or order.all.num > order.merged.num:
        parts.append(f"{_tau(order.all)} over all {order.all.num} that both have")
    text = (
        f"order against the published one on {where}, {order.generation} checkpoints, by absolute "
        f"accuracy: Kendall's tau-b {', '.join(parts)}. "
    )
    if not order.num_reversed:
        return f"{text}No pair of {order.num_pairs} stands the other way round here."
    text += (
        f"{order.num_reversed} of {order.num_pairs} pairs stand the other way round here, "
        f"{len(order.reversed) or 'none'} of them beyond the paired 95% interval over images"
    )
    pairs = [
        f"{one.better.label} above {one.worse.label} ({signed(one.here.value)} "
        f"[{signed(one.here.images.low)}, {signed(one.here.images.high)}], published "
        f"{signed(one.published)})"
        for one in order.reversed
    ]
    return f"{text}: {'; '.join(pairs)}." if pairs else f"{text}."


def _quoted(order: Ordering) -> str:
    """Return ' Quoted by others, not read in the source: ACE.', or nothing."""
    if not order.quoted:
        return ""
    return f" Quoted by others, not read in the source: {', '.join(order.quoted)}."


def _tau(tau: Tau) -> str:
    if math.isnan(tau.value):
        return "undefined (all equal)"
    how = "exact" if tau.num <= ALL_PERMUTATIONS_OF else "by random permutations"
    p = f"p = {tau.p:.4f}" if tau.p >= 1e-4 else "p < 0.0001"
    return f"{tau.value:+.2f} ({p}, {how})"


def leaderboard_csv(tables: Sequence[Table]) -> str:
    """Return the rows in the leaderboard's order as csv: fractions, seconds and bytes."""
    records = []
    for table in tables:
        for number, row in enumerate(in_order(table)):
            seconds, stored = merge_seconds(row), row.stored_per_task
            records.append(
                {"block": block(row), "place": number + 1}
                | row_record(table, row)
                | {"alpha_low": min(row.alphas), "alpha_high": max(row.alphas)}
                | {"merge_seconds": "" if seconds is None else seconds}
                | {"peak_memory_bytes": peak_memory(row)}
                | {"stored_bytes_per_task": "" if stored is None else stored}
            )
    return to_csv(records)
