"""Numbers as texts for people: percent appears here and nowhere before."""

import math
from collections.abc import Iterable, Sequence

from tsv_bench.benchmark.published import Figure
from tsv_bench.benchmark.runs import Run
from tsv_bench.report.tables.row import Row
from tsv_bench.report.tables.statistics import Estimate, Interval

PUBLISHED_COLUMNS = ("published", "difference")  # two columns beside one of ours


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def signed(difference: float, digits: int = 1) -> str:
    return f"{100 * difference:+z.{digits}f}"  # z: no minus before a zero


def as_printed(figure: Figure, name: str) -> str:
    """ "absolute" or "normalized" percent with the source's digits; "-" where it gives none."""
    fraction = getattr(figure, name)
    return "-" if fraction is None else f"{100 * fraction:.{figure.digits}f}"


def with_interval(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "-"
    if estimate.images is None:
        return percent(estimate.value)
    half = (estimate.images.high - estimate.images.low) / 2
    return f"{percent(estimate.value)} ±{percent(half)}"


def bounds(interval: Interval) -> str:
    return f"[{percent(interval.low)}, {percent(interval.high)}]"


def row_cells(row: Row, published: bool = False) -> list[str]:
    """label, absolute, normalized, alpha, seconds; published figures and differences if asked."""
    alphas = [f"{alpha:.2f}" for alpha in (min(row.alphas), max(row.alphas))]
    seconds = f"{row.seconds:.1f}" if row.seconds < 10 else f"{row.seconds:.0f}"
    texts = [row.label]
    for name in ("absolute", "normalized"):
        texts.append(with_interval(getattr(row, name)))
        texts += beside(row, name) if published else []
    return [*texts, "-".join(dict.fromkeys(alphas)), seconds]


def beside(row: Row, name: str) -> list[str]:
    """The published figure with its generation, and the difference; "-" where there is none.

    In brackets, and without a difference, where ours is of other checkpoints.
    """
    figure = row.published
    if figure is None or getattr(figure, name) is None:
        return ["-", "-"]
    text = f"{as_printed(figure, name)} ({figure.generation})"
    found = row.differences.get(name)
    return [text if row.comparable else f"[{text}]", "-" if found is None else signed(found)]


def accuracy_cells(row: Row) -> list[str]:
    return [percent(accuracy) for accuracy in row.accuracy.values()]


def made_of(runs: Sequence[Run]) -> str:
    """Seeds, commit and checkpoints of these Runs."""
    fine = [c for run in runs for task, c in run.checkpoints.items() if task != "pretrained"]
    seeds = sorted({run.seed for run in runs})
    return (
        f"fine-tuning seed{'s' if len(seeds) > 1 else ''} {some(seeds)}; "
        f"commit {some(run.commit for run in runs)}; "
        f"checkpoints: {some(c['generation'] for c in fine)}."
    )


def some(values: Iterable[object]) -> str:
    """Each value once; "unknown" when there is none."""
    return ", ".join(dict.fromkeys(str(value) for value in values)) or "unknown"
