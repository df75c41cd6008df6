"""One row of a table: a method with one set of knobs, averaged over its fine-tuning seeds."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tsv_bench.benchmark.published import Figure, is_published
from tsv_bench.benchmark.runs import Run
from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.statistics import Estimate, Interval
from tsv_bench.wording import suggested
from tsv_bench.wording.escaping import visible

# Stages whose results all methods use: whichever method runs first pays for the others.
SHARED_STAGES = ("data", "checkpoints")
BEYOND_STAGES = ("unseen", "corrupted")  # tests that not all Runs make

REFERENCES = ("zero_shot", "individual")  # the ends of the scale, between which methods lie

# One model for all tasks; experts, of which a router chooses for each image; its own model for each
# task, which must be known at inference.
SERVED = ("one", "routed", "own")

# A Run and its per-image correctness: task -> [images], bool; None where the file is lost.
Evaluated = tuple[Run, dict[str, np.ndarray] | None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method with one set of knobs; numbers are means over its seeds, in [0, 1]."""

    label: str  # with the knobs that tell it from another row of the same method
    runs: tuple[Run, ...]  # one a seed, by seed
    correct: dict[str, np.ndarray] | None  # task -> [seeds, images], bool
    absolute: Estimate
    normalized: Estimate  # nan where an individual accuracy is missing
    unseen: Estimate | None = None  # mean accuracy over unseen tasks; None: there are none
    unseen_normalized: Estimate | None = None
    unseen_correct: dict[str, np.ndarray] | None = None  # as ``correct``, of the unseen tasks
    # Corruption -> mean accuracy over tasks; "" is the mean over all; {}: there are none.
    corrupted: Mapping[str, Estimate] = field(default_factory=dict)
    published: Figure | None = None  # the published figure of this method, suite and backbone
    comparable: bool = False  # whether it was measured on the same checkpoints

    @property
    def method(self) -> str:
        return self.runs[0].method

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def is_reference(self) -> bool:
        """Whether this row is an end of the scale (`REFERENCES`), not a method."""
        return self.method in REFERENCES

    @property
    def served(self) -> str | None:
        """What the tasks are served, of `SERVED`; None if no Run says so."""
        if any(run.router for run in self.runs):
            return "routed"
        if any(run.task_known for run in self.runs):
            return "own"
        # False is also the default of Runs older than this field; those lack the bytes as well.
        return None if all(run.stored_bytes is None for run in self.runs) else "one"

    def router(self, kind: str) -> dict[str, float] | None:
        """Return task -> a score of `RouterScores`, the mean over seeds; None without a router."""
        if not all(run.router for run in self.runs):
            return None
        scores = [getattr(run.router, kind) for run in self.runs]
        return {t: _mean(of_seed[t].accuracy for of_seed in scores) for t in self.runs[0].tasks}

    @property
    def data(self) -> str:
        """What data the method saw: "none", or as in "32 unlabelled val"."""
        return ", ".join(dict.fromkeys(r.seen.text if r.seen else "none" for r in self.runs))

    @property
    def data_kind(self) -> str:
        """Which of `DATA_KINDS` the method saw."""
        return next((run.seen.kind for run in self.runs if run.seen), "none")

    @property
    def stored_per_task(self) -> float | None:
        """Bytes stored beside the pretrained backbone / number of tasks; None if unknown."""
        sizes = [run.stored_bytes for run in self.runs]
        return None if None in sizes else _mean(sizes) / len(self.runs[0].tasks)

    @property
    def accuracy(self) -> dict[str, float]:
        """Test accuracy of each task, the mean over seeds."""
        return {t: _mean(run.test[t].accuracy for run in self.runs) for t in self.runs[0].tasks}

    @property
    def accuracy_intervals(self) -> dict[str, Interval]:
        """Wilson's 95% interval of each task's accuracy."""
        total = {task: score.total for task, score in self.runs[0].test.items()}
        return {t: statistics.wilson(a, total[t]) for t, a in self.accuracy.items()}

    @property
    def generation(self) -> str:
        """Generation of the fine-tuned checkpoints, "unknown" if they do not say.

        Several are joined, as in "fixed, original"; no published figure is comparable with them.
        """
        checkpoints = (run.checkpoints.get(task, {}) for run in self.runs for task in run.tasks)
        return ", ".join(sorted({c.get("generation", "unknown") for c in checkpoints}))

    @property
    def differences(self) -> dict[str, float]:
        """Ours minus the published "absolute" and "normalized"; {} unless they are comparable."""
        if not self.comparable:
            return {}
        pairs = {name: (getattr(self, name).value, getattr(self.published, name))
                 for name in ("absolute", "normalized")}  # fmt: skip
        return {
            name: ours - theirs
            for name, (ours, theirs) in pairs.items()
            if theirs is not None and not math.isnan(ours)
        }

    @property
    def alphas(self) -> tuple[float, ...]:
        return tuple(run.alpha for run in self.runs)

    @property
    def seconds(self) -> float | None:
        """Wall time of a Run's own work (merging, choosing alpha, testing), the mean over seeds.

        None if no Run says any.
        """
        others = SHARED_STAGES + BEYOND_STAGES
        own = [{s: t for s, t in run.seconds.items() if s not in others} for run in self.runs]
        return _mean(sum(seconds.values()) for seconds in own) if any(own) else None

    def correct_of(self, seeds: Sequence[int], name: str = "correct") -> dict[str, np.ndarray]:
        """Return the per-image correctness of these seeds: task -> [seeds, images].

        ``name``: "correct", or "unseen_correct".
        """
        index = [self.seeds.index(seed) for seed in seeds]
        return {task: bits[index] for task, bits in getattr(self, name).items()}


def build_row(
    label: str,
    evaluated: Sequence[Evaluated],
    individual: Mapping[int, Evaluated],
    notes: dict[str, list[str]],
) -> Row:
    """Build the row of Runs that differ in their seed alone.

    ``individual`` has the individual models' Run of each seed. Without it, or without per-image
    correctness, the row lacks an interval or a value, and ``notes`` (note -> labels) says why.
    """

    def note(text: str) -> None:
        notes.setdefault(text, []).append(label)

    runs = tuple(run for run, _ in evaluated)
    absolute = statistics.without_images([run.absolute for run in runs])
    normalized = statistics.without_images([run.normalized for run in runs])
    unknown = [task for run in runs for task in run.tasks if task not in run.normalizer]
    if unknown:
        again = suggested.command("tsv-bench", f"method={runs[0].method}")
        normalized = Estimate(float("nan"))
        note(
            f"no normalized accuracy, its Run lacks the accuracy of the fine-tuned model for "
            f"{unknown[0]!r}. "
            + (
                f"Make it again with: {again}"
                if unit_of(runs) == "images"
                else "Give individual= to save_answers."
            )
        )
    others = [run for run in runs if is_published(run.normalizer_source)]
    if others and not unknown:
        note(
            f"normalized by accuracies of others ({others[0].normalizer_source}), not of models "
            f"evaluated here, so without an image interval."
        )
    correct = statistics.stacked([bits for _, bits in evaluated], runs[0].tasks)
    if correct is None:
        note("no intervals, the per-image correctness beside its json is lost.")
        return Row(label=label, runs=runs, correct=None, absolute=absolute, normalized=normalized)
    absolute = statistics.absolute(correct)
    known = not unknown and not others
    bits = normalizer_bits(runs, individual) if known else None
    if bits is not None:
        normalized = statistics.normalized(correct, bits)
    elif known and not _partners(runs, individual):
        individual_run = suggested.command("tsv-bench", "method=individual")
        note(
            "no image interval of normalized accuracy, the individual models that normalize it "
            "have no Run here."
            + (f" Make it with: {individual_run}" if unit_of(runs) == "images" else "")
        )
    return Row(label=label, runs=runs, correct=correct, absolute=absolute, normalized=normalized)


def unit_of(runs: Sequence[Run]) -> str:
    """Return what was counted: "images", or "examples" of Runs that say so."""
    units = {run.settings.get("evaluation", {}).get("unit") for run in runs}
    return "examples" if units == {"examples"} else "images"


def normalizer_bits(
    runs: Sequence[Run], individual: Mapping[int, Evaluated]
) -> dict[str, np.ndarray] | None:
    """Return the correctness of the individual models that these Runs were divided by.

    Task -> [seeds, images]; None if they have no Run here, or its correctness is lost.
    """
    return statistics.stacked([bits for _, bits in _partners(runs, individual)], runs[0].tasks)


def _partners(runs: Sequence[Run], individual: Mapping[int, Evaluated]) -> list[Evaluated]:
    """Return the individual models' Run of each seed; [] unless it normalized each of the Runs."""
    partners = [individual[run.seed] for run in runs if run.seed in individual]
    if len(partners) < len(runs):
        return []
    divided = all(_is_normalizer(p, run) for (p, _), run in zip(partners, runs, strict=True))
    return partners if divided else []


def row_labels(runs: Sequence[Run]) -> list[str]:
    """Return a label for each Run; several of one method are told apart by their knobs."""
    labels = []
    for run in runs:
        same = [other.knobs for other in runs if other.method == run.method]
        names = dict.fromkeys(name for knobs in same for name in knobs)
        differing = [n for n in names if len({json.dumps(k.get(n)) for k in same}) > 1]
        knobs = [f"{n}={as_yaml(run.knobs.get(n))}" for n in differing]
        labels.append(f"{run.label} ({', '.join(knobs)})" if knobs else run.label)
    return labels


def as_yaml(value: object) -> str:
    """Return a knob's value as a command line has it: strings without quotes, None as null."""
    return visible(value) if isinstance(value, str) else json.dumps(value)


def _is_normalizer(individual: Run, run: Run) -> bool:
    """Return whether ``run`` was normalized by the accuracies of ``individual``."""
    pairs = [(individual.test[t].accuracy, run.normalizer.get(t, math.nan)) for t in run.tasks]
    return all(math.isclose(*pair) for pair in pairs)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
