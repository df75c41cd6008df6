"""ATM, alternating tuning and merging: https://arxiv.org/abs/2411.03055."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from torch import Tensor

from tsv_bench import methods
from tsv_bench.methods.bench import Bench, check_bench, check_fits
from tsv_bench.methods.by_name import method_by_name
from tsv_bench.methods.forms import Shared
from tsv_bench.methods.knobs import check_choice, check_not_negative, check_positive, check_whole
from tsv_bench.methods.learned.rounds import Plan, Rounds
from tsv_bench.methods.served import form_by_trial
from tsv_bench.task_vectors.lazy import LazyVector, Part, ServedVectors, TaskVectors, lazy_vectors
from tsv_bench.task_vectors.merge import times
from tsv_bench.task_vectors.streaming import gather, stream

__all__ = ["atm"]

log = logging.getLogger(__name__)

MEAN = "mean"
SCHEDULES = ("constant", "recipe")
DATA = {"bench", "inputs", "means", "fisher"}  # arguments of methods that look at data


def atm(
    task_vectors: TaskVectors,
    *,
    bench: Bench | None,
    rounds: int = 10,
    epochs: int | None = None,
    steps_per_round: int | None = None,
    start: str = "zero_shot",
    start_knobs: Mapping | None = None,
    start_alpha: float | int = 1.0,
    merge: str = MEAN,
    merge_knobs: Mapping | None = None,
    round_alpha: float | int = 1.0,
    schedule: str = "constant",
    rate: float | int | None = None,
    weight_decay: float | int | None = None,
    batch_size: int | None = None,
    shift: int | None = None,
) -> ServedVectors:
    """Serve every task what rounds of fine-tuning all tasks from one model and merging lead to.

    A round fine-tunes each task from the current model with a fresh optimizer, by the backbone's
    recipe, and adds ``round_alpha`` times what the tasks changed, merged: their mean, or what the
    method ``merge`` serves. A task is tuned for ``epochs`` or ``steps_per_round`` in each round;
    with neither the epochs of its own fine-tuning are shared among ``rounds``. ``start``
    is the method whose vector, times ``start_alpha``, is the first model's. ``schedule`` is
    "constant", the recipe's peak rate, or "recipe", its warm-up and cosine in every round.
    ``rate``, ``weight_decay``, ``batch_size`` and ``shift`` replace the recipe's. All this happens
    when the first layer is wanted. Raises ValueError for knobs out of range, or without a bench.
    """
    check_whole("rounds", rounds, "how often tasks are tuned and merged", 1)
    for knob, value in (("epochs", epochs), ("steps_per_round", steps_per_round)):
        if value is not None:
            check_whole(knob, value, "how long each task is tuned in a round", 1)
    if epochs is not None and steps_per_round is not None:
        raise ValueError(
            f"epochs={epochs} and steps_per_round={steps_per_round} both say how long a round is: "
            f"set one of them to null."
        )
    check_not_negative("start_alpha", start_alpha, "what the start's vector is multiplied by")
    check_positive("round_alpha", round_alpha, "what a round's merged changes are multiplied by")
    check_choice("schedule", schedule, SCHEDULES, "a way the learning rate goes in a round")
    changes = _changes(rate, weight_decay, batch_size, shift)
    start_of = _named("start", start, start_knobs, bench=bench)
    merge_of = None
    if merge != MEAN:
        merge_of = _named("merge", merge, merge_knobs)
    elif merge_knobs is not None and merge_knobs != {}:
        raise ValueError(f"merge_knobs={merge_knobs!r} has no effect: merge=mean has no knobs.")
    if not task_vectors:
        return {}
    check_bench("atm", bench)
    _check_serves_one("start", start, start_of, task_vectors)
    if merge_of:
        _check_serves_one("merge", merge, merge_of, task_vectors)
    if len(task_vectors) == 1:
        log.warning(
            f"atm with one task, {next(iter(task_vectors))}, merges nothing: this is its "
            f"fine-tuning, with a fresh optimizer in each of {rounds} rounds."
        )
    plan = Plan(
        rounds=rounds, epochs=epochs, steps=steps_per_round, alpha=round_alpha, merge=merge_of,
        batch_size=batch_size, constant=schedule == "constant", changes=changes,
    )  # fmt: skip
    vectors = lazy_vectors(task_vectors.values())

    @cache
    def learned() -> dict[str, Tensor]:
        check_fits(bench, task_vectors)
        # Learning enlarges how a sum is rounded, which depends on the order of its terms.
        rounds = Rounds(bench, sorted(task_vectors), list(vectors[0]), plan)

        def first() -> Mapping[str, Tensor]:
            served = next(iter(start_of(task_vectors).values()))
            return gather(stream(times(served, float(start_alpha))))

        return rounds.vector(first)

    def parts(name: str) -> Sequence[Part]:
        # Learned here and not in the part: there torch's threads are shared among parts.
        layer = learned()[name].to(found.dtype(name))
        return [Part(name, 0, layer.numel(), lambda: layer, lambda layer: layer)]

    found = LazyVector(vectors, parts)
    return dict.fromkeys(task_vectors, found)


def _changes(
    rate: object, weight_decay: object, batch_size: object, shift: object
) -> dict[str, object]:
    """Return what replaces fields of the recipe, checked."""
    if rate is not None:
        check_positive("rate", rate, "the peak learning rate of AdamW")
    if weight_decay is not None:
        check_not_negative("weight_decay", weight_decay, "the weight decay of AdamW")
    if batch_size is not None:
        check_whole("batch_size", batch_size, "the number of images in a step", 1)
    if shift is not None:
        check_whole("shift", shift, "the pixels by which training images are moved at most", 0)
    given = {"rate": rate, "weight_decay": weight_decay, "batch_size": batch_size, "shift": shift}
    return {name: value for name, value in given.items() if value is not None}


def _named(
    knob: str, name: str, knobs: Mapping | None, **given: object
) -> Callable[[Mapping], Mapping]:
    """Return the method of a knob; none that a round cannot hold."""
    if name == "atm":
        raise ValueError(f"{knob}=atm: rounds within rounds. Set rounds higher, or another {knob}.")
    if name in methods.__all__:
        takes = DATA.intersection(inspect.signature(getattr(methods, name)).parameters)
        if lacking := sorted(takes - set(given)):
            raise ValueError(
                f"{knob}={name} looks at data ({lacking[0]}), which atm has not for it. Choose a "
                f"method that sees task vectors alone."
            )
    return method_by_name(knob, name, f"{knob}_knobs", knobs, **given)


def _check_serves_one(
    knob: str, name: str, method: Callable[[Mapping], Mapping], task_vectors: TaskVectors
) -> None:
    if form_by_trial(method, task_vectors) is not Shared:
        raise ValueError(
            f"{knob}={name} serves each task its own vector; atm needs one that is for all."
        )
