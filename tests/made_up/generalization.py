"""Runs with unseen tasks and corrupted images that nobody made."""

from dataclasses import replace
from itertools import count

from made_up.runs import make_correct, make_run

from tsv_bench.benchmark.beyond.records import Corrupted, Unseen
from tsv_bench.scores import score

LABELS = {"land": "Land", "greek": "Greek"}


def beyond(method="tsv_merge", seed=0, num_images=40, corruptions=("fog", "contrast")):
    """(Run, correct) of one merged task, two unseen ones and corrupted images of the first."""
    run, correct = make_run(method, seed, tasks=("digits",), num_images=num_images)
    of = {m: make_correct(m, seed, LABELS, num_images) for m in (method, "individual")}
    test, own = ({t: score(bits) for t, bits in of[m].items()} for m in (method, "individual"))
    unseen = Unseen(
        tasks=LABELS,
        test=test,
        absolute=sum(s.accuracy for s in test.values()) / 2,
        normalized=sum(test[t].accuracy / own[t].accuracy for t in test) / 2,
        normalizer={t: s.accuracy for t, s in own.items()},
        checkpoints={t: {"sha256": t, "generation": "finetune"} for t in LABELS},
    )
    damaged = {
        Corrupted.key(name, "digits"): make_correct(method, seed + own, (name,), num_images)[name]
        for name, own in zip(corruptions, count(7, 10), strict=False)
    }
    corrupted = Corrupted(
        severity=3,
        test={n: {"digits": score(damaged[Corrupted.key(n, "digits")])} for n in corruptions},
    )
    data = run.data | {task: f"data-{task}" for task in LABELS}
    return replace(run, unseen=unseen, corrupted=corrupted, data=data), correct | of[
        method
    ] | damaged
