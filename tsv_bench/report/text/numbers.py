"""Numbers as text for people: fractions become percent here, and stay fractions elsewhere."""

import math
from collections.abc import Iterable, Sequence

from tsv_bench.benchmark.published import Figure
from tsv_bench.benchmark.runs import Run
from tsv_bench.report.tables.generalization import unseen_accuracy
from tsv_bench.report.tables.row import Row
from tsv_bench.report.tables.statistics import Estimate, Interval

PUBLISHED_COLUMNS = ("published", "difference")  # beside each column of ours


def percent(fraction: float) -> str:
    """Return a fraction in percent: "85.9"."""
    return f"{100 * fraction:.1f}"


def signed(difference: float, digits: int = 1) -> str:
    """Return a difference of fractions in points with its sign: "+2.9"."""
    return f"{100 * difference:+z.{digits}f}"  # z: no minus before a zero


def as_printed(figure: Figure, name: str) -> str:
    """Return a published accuracy in percent with the digits of its source.

    ``name`` is "absolute" or "normalized". Returns "-" if the source does not give it.
    """
    fraction = getattr(figure, name)
    return "-" if fraction is None else f"{100 * fraction:.{figure.digits}f}"


def with_interval(estimate: Estimate) -> str:
    """Return "85.9 ±0.4", half the interval over images; "-" for nan."""
    if math.isnan(estimate.value):
        return "-"
    if estimate.images is None:
        return percent(estimate.value)
    half = (estimate.images.high - estimate.images.low) / 2
    return f"{percent(estimate.value)} ±{percent(half)}"


def bounds(interval: Interval) -> str:
    """Return "[85.5, 86.3]"."""
    return f"[{percent(interval.low)}, {percent(interval.high)}]"


def row_cells(
    row: Row, published: bool = False, data: bool = False, unseen: bool = False
) -> list[str]:
    """Return the cells of a row: label, absolute, normalized, alpha, seconds.

    With ``published``, the published figure and our difference follow each accuracy. With ``data``,
    what the method saw follows its label. With ``unseen``, accuracies of unseen tasks follow those
    of the merged ones.
    """
    alphas = [f"{alpha:.2f}" for alpha in (min(row.alphas), max(row.alphas))]
    seconds = f"{row.seconds:.1f}" if row.seconds < 10 else f"{row.seconds:.0f}"
    texts = [row.label, row.data] if data else [row.label]
    for name in ("absolute", "normalized"):
        texts.append(with_interval(getattr(row, name)))
        texts += beside(row, name) if published else []
    for estimate in (row.unseen, row.unseen_normalized) if unseen else ():
        texts.append("-" if estimate is None else with_interval(estimate))
    return [*texts, "-".join(dict.fromkeys(alphas)), seconds]


def beside(row: Row, name: str) -> list[str]:
    """Return the published figure with its generation, and our difference; "-" if there is none.

    A figure of other checkpoints than ours stands in brackets, without a difference.
    """
    figure = row.published
    if figure is None or getattr(figure, name) is None:
        return ["-", "-"]
    text = f"{as_printed(figure, name)} ({figure.origin})"
    found = row.differences.get(name)
    return [text if row.comparable else f"[{text}]", "-" if found is None else signed(found)]


def accuracy_cells(row: Row, unseen: Iterable[str] = ()) -> list[str]:
    """Return the accuracy of each task in percent; those of ``unseen`` tasks come last."""
    others = unseen_accuracy(row)
    found = [*row.accuracy.values(), *(others.get(task) for task in unseen)]
    return ["-" if accuracy is None else percent(accuracy) for accuracy in found]


def made_of(runs: Sequence[Run]) -> str:
    """Return the seeds, commits and checkpoints of these Runs in a sentence."""
    fine = [c for run in runs for task, c in run.checkpoints.items() if task != "pretrained"]
    seeds = sorted({run.seed for run in runs})
    return (
        f"fine-tuning seed{'s' if len(seeds) > 1 else ''} {some(seeds)}; "
        f"commit {some(run.commit for run in runs)}; "
        f"checkpoints: {some(c.get('generation', 'unknown') for c in fine)}."
    )


def some(values: Iterable[object]) -> str:
    """Return each value once, with commas between; "unknown" if there is none."""
    return ", ".join(dict.fromkeys(str(value) for value in values)) or "unknown"
