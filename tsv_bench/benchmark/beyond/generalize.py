"""How a method does beyond the suite: on tasks that it did not merge, and on corrupted images.

Both are tested with the alpha that was chosen on validation images of the merged tasks, as they
are. Nothing is merged or chosen again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tsv_bench.benchmark.beyond.corrupted import on_corrupted
from tsv_bench.benchmark.beyond.records import Corrupted, Unseen
from tsv_bench.benchmark.beyond.unseen import on_unseen, unseen_scores
from tsv_bench.benchmark.evaluate import Outcome, stage
from tsv_bench.benchmark.evaluator import Evaluator
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.data import Split, Task
from tsv_bench.data.corruptions.corrupted import Corruptions
from tsv_bench.methods.forms import Served
from tsv_bench.scores import score


@dataclass(frozen=True, kw_only=True)
class Generalization:
    """What a Run says of it; None and {} where nothing was asked for."""

    unseen: Unseen | None = None
    corrupted: Corrupted | None = None
    bits: Mapping[str, np.ndarray] = field(default_factory=dict)  # by the names of `Run.scores`


def generalize(
    outcome: Outcome,
    evaluator: Evaluator,
    load: Callable[[Task, str], Split],
    *,
    tasks: Mapping[str, Task],
    unseen: Mapping[str, Task],
    corruptions: Corruptions | None,
    checkpoints: Mapping[str, Checkpoint],
    normalizer: Mapping[str, float] | None,
    own: Served | None = None,
) -> Generalization:
    """Test what an outcome serves on ``unseen`` tasks and on corrupted images of its ``tasks``.

    ``normalizer``: unseen task -> accuracy of its own model; None: these are served, as ``own``.
    ``outcome.seconds`` gets the time.
    """
    scores, damaged, bits = None, None, {}
    if unseen:
        with stage("unseen", outcome.seconds):
            hits = on_unseen(own or outcome.served, outcome.alpha, evaluator, unseen, load)
        scores = unseen_scores(unseen, hits, normalizer, checkpoints)
        bits |= hits
    if corruptions:
        testing = {name: load(task, "test") for name, task in tasks.items()}
        with stage("corrupted", outcome.seconds):
            found = on_corrupted(outcome.served, outcome.alpha, evaluator, testing, corruptions)
        damaged = Corrupted(
            severity=corruptions.severity,
            test={name: {t: score(hits) for t, hits in of.items()} for name, of in found.items()},
        )
        bits |= {
            Corrupted.key(name, task): hits
            for name, of_task in found.items()
            for task, hits in of_task.items()
        }
    return Generalization(unseen=scores, corrupted=damaged, bits=bits)
