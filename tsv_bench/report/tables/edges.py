"""Choices at the edge of their candidates: a better value may lie beyond."""

from collections.abc import Iterator, Sequence
from typing import Any

from tsv_bench.benchmark.runs import Run
from tsv_bench.report.tables.row import Row, as_yaml

EDGE = "edge"  # behind a value, in every table


def is_at_edge(value: Any, candidates: Sequence[Any]) -> bool:
    """Return whether a value is the least or the largest of its candidates.

    Zero is no edge: it leaves the pretrained weights as they are, and nothing lies below it.
    """
    return len(candidates) > 1 and value != 0 and value in (min(candidates), max(candidates))


def alpha_at_edge(run: Run) -> bool:
    """Return whether a Run's alpha is at the edge of those that were tried.

    A search that stopped early has tried worse ones beyond its choice, so this is no edge.
    """
    return is_at_edge(run.alpha, [point["alpha"] for point in run.alpha_curve])


def knob_candidates(run: Run) -> list[Any]:
    """Return the candidates for the knob that validation chose; [] if a Run does not say."""
    found = _method(run).get("candidates")
    numbers = isinstance(found, list) and all(isinstance(c, int | float) for c in found)
    return found if numbers else []


def chosen_for_suite(run: Run) -> bool:
    """Return whether validation chose one value of the knob for all tasks."""
    return _method(run).get("by") == "suite"


def _method(run: Run) -> dict[str, Any]:
    method = run.settings.get("method")
    return method if isinstance(method, dict) else {}


def knobs_at_edge(run: Run) -> dict[str, int]:
    """Return knob -> for how many tasks its chosen value is at the edge of its candidates."""
    candidates = knob_candidates(run)
    found: dict[str, int] = {}
    for chosen in run.task_knobs.values():
        for knob, value in chosen.items():
            if is_at_edge(value, candidates):
                found[knob] = found.get(knob, 0) + 1
    return found


def note_edges(rows: Sequence[Row], notes: list[str]) -> None:
    """Add a note on the rows whose alpha, or a knob chosen on validation, is at an edge."""
    if alphas := [text for row in rows for text in _alpha_texts(row)]:
        notes.append(
            f"alpha at the edge of its candidates, beyond which a better one may lie: "
            f"{'; '.join(alphas)}. method.alphas=[...] sets others."
        )
    if knobs := [text for row in rows for text in _knob_texts(row)]:
        notes.append(
            f"knobs chosen at the edge of their candidates, beyond which better ones may lie: "
            f"{'; '.join(knobs)}. method.choose.candidates=[...] sets others."
        )


def _alpha_texts(row: Row) -> Iterator[str]:
    """Yield "TIES (1 of 0.03 to 1, 2 of 3 seeds)", or nothing."""
    at_edge = [run for run in row.runs if alpha_at_edge(run)]
    if at_edge:
        grids = [[point["alpha"] for point in run.alpha_curve] for run in at_edge]
        values = dict.fromkeys(f"{run.alpha:.3g}" for run in at_edge)
        low, high = min(map(min, grids)), max(map(max, grids))
        yield f"{row.label} ({', '.join(values)} of {low:.3g} to {high:.3g}{_seeds(row, at_edge)})"


def _knob_texts(row: Row) -> Iterator[str]:
    """Yield "TALL mask TA (mask_lambda of 0.2 to 0.6, 5 of 8 choices)", or nothing."""
    of_runs = [(run, knobs_at_edge(run)) for run in row.runs]
    for knob in dict.fromkeys(knob for _, found in of_runs for knob in found):
        at_edge = [run for run, found in of_runs if knob in found]
        candidates = [value for run in at_edge for value in knob_candidates(run)]
        scope = f"{as_yaml(min(candidates))} to {as_yaml(max(candidates))}"
        if chosen_for_suite(row.runs[0]):
            yield f"{row.label} ({knob} of {scope}{_seeds(row, at_edge)})"
            continue
        times = sum(found.get(knob, 0) for _, found in of_runs)
        total = sum(len(run.task_knobs) for run in row.runs)
        yield f"{row.label} ({knob} of {scope}, {times} of {total} choices)"


def _seeds(row: Row, at_edge: Sequence[Run]) -> str:
    return f", {len(at_edge)} of {len(row.runs)} seeds" if len(row.runs) > 1 else ""
