"""Published accuracies, from published.yaml beside this file; as fractions, not percent.

A figure is comparable only with numbers from the same checkpoints: every figure names the
generation of those that its source merged.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FILE = Path(__file__).with_suffix(".yaml")
# Generations that name one set of checkpoints each. The others, "other" and "finetune", do not:
# anybody's checkpoints are called so.
NAMED_SETS = ("original", "fixed")


class Figure(NamedTuple):
    """Mean accuracies over a suite's test splits, in [0, 1]; None: the source gives none."""

    absolute: float | None
    normalized: float | None
    generation: str  # of the checkpoints
    source: str
    digits: int  # decimals of a percentage, as the source prints it
    sure: str = "primary"  # "note": quoted by others; "inferred": those do not name the backbone

    @property
    def origin(self) -> str:
        """The generation, and how sure the figure is unless the source itself was read."""
        return self.generation if self.sure == "primary" else f"{self.generation}, {self.sure}"


@cache
def _content() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def suites() -> dict[str, list[str]]:
    """Return suite -> its tasks in the paper's order, of all suites with published figures."""
    return _content()["suites"]


def backbones() -> dict[str, str]:
    """Return name -> label of the paper's backbones, in its order."""
    return _content()["backbones"]


def generations() -> dict[str, str]:
    """Return generation -> what a reader must know of these checkpoints."""
    return _content()["generations"]


def find(backbone: str, suite: str, method: str) -> list[Figure]:
    """Return every published figure of a method, the one to show by default first; or []."""
    if suite not in suites():
        return []
    index = list(suites()).index(suite)
    figures = []
    for table in _content()["averages"]:
        cells = table["rows"].get(method, {}).get(backbone)
        if cells and (cell := cells[index]):
            values = [_fraction(value) for value in cell]
            about = (table[key] for key in ("generation", "source", "digits"))
            figures.append(Figure(*values, *about, table.get("sure", "primary")))
    return figures


def averages(backbone: str, suite: str) -> dict[str, dict[str, Figure]]:
    """Return generation -> method -> its first figure with an absolute accuracy."""
    methods = dict.fromkeys(m for table in _content()["averages"] for m in table["rows"])
    found: dict[str, dict[str, Figure]] = {}
    for method in methods:
        for figure in find(backbone, suite, method):
            if figure.absolute is not None:
                found.setdefault(figure.generation, {}).setdefault(method, figure)
    return found


def choose(figures: Iterable[Figure], generation: str) -> tuple[Figure | None, bool]:
    """Return the figure to show beside a number, and whether both are of the same checkpoints.

    It is the first figure of the same generation, else the first of all; None if there is none.
    """
    figures = list(figures)
    if generation in NAMED_SETS:
        for figure in figures:
            if figure.generation == generation:
                return figure, True
    return (figures[0] if figures else None), False


def accuracies(backbone: str, suite: str, method: str) -> dict[str, float]:
    """Return task -> published test accuracy; {} if the sources give only averages."""
    tasks = suites().get(suite, [])
    if method == "individual" and tasks and backbone in backbones():
        return normalizer(backbone, tasks)["test"]
    for table in _content()["accuracies"]:
        if (table["backbone"], table["suite"]) == (backbone, suite) and method in table["rows"]:
            return dict(zip(tasks, map(_fraction, table["rows"][method]), strict=True))
    return {}


def other_knobs(method: str, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the published values of the knobs that differ from them."""
    held = _content()["knobs"].get(method, {})
    return {name: value for name, value in held.items() if knobs.get(name, value) != value}


def normalizer(backbone: str, tasks: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return "val" or "test" -> task -> published accuracy of the task's own fine-tuned model.

    They are of the original checkpoints. Raises ValueError if one is not published.
    """
    published = _content()["individual"]["accuracies"]
    tasks = list(tasks)
    if backbone not in backbones():
        raise ValueError(
            f"no accuracy of individual models of {backbone!r} is published; there are those of "
            f"{', '.join(backbones())}. Use normalizer=own."
        )
    if unknown := [task for task in tasks if task not in published]:
        raise ValueError(
            f"no accuracy of an individual model is published for {len(unknown)} of {len(tasks)} "
            f"tasks, first {unknown[0]!r}. Use normalizer=own."
        )
    return {split: {t: published[t][backbone][split] for t in tasks} for split in ("val", "test")}


def normalizer_source() -> str:
    """Return the text that `Run.normalizer_source` has for these; see `is_published`."""
    individual = _content()["individual"]
    return f"published, {individual['generation']} checkpoints: {individual['source']}"


def is_published(source: str) -> bool:
    """Return whether a Run's normalizer was published, not measured on the Run's own images."""
    return source.startswith("published")


def _fraction(percent: float | None) -> float | None:
    # Without rounding 85.86 would become a float beside 0.8586.
    return None if percent is None else round(percent / 100, 6)
