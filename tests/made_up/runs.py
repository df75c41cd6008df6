"""Runs that nobody ran: correctness drawn per image, everything else made to fit it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from tsv_bench.benchmark import published
from tsv_bench.benchmark.runs import RouterScores, Run, Score

LABELS = {
    "zero_shot": "Zero-shot",
    "weight_average": "Weight average",
    "task_arithmetic": "Task Arithmetic",
    "ties": "TIES",
    "tsv_merge": "TSV-M",
    "tsv_compress": "TSV-C",
    "individual": "Individual",
}
LEVELS = dict(zip(LABELS, (0.70, 0.755, 0.768, 0.763, 0.794, 0.883, 0.888), strict=True))
TASKS = ("digits", "street", "signs", "textures", "land", "greek", "materials", "symbols")
GRIDS = {"task_arithmetic": 1, "ties": 1, "tsv_merge": 3}  # largest of 30 alphas


def make_correct(method, seed=0, tasks=TASKS, num_images=200):
    """task -> bool. The same images are hard for every method, as in life."""
    correct = {}
    for index, task in enumerate(tasks):
        hardness = np.random.default_rng(index).uniform(size=num_images)
        rng = np.random.default_rng([seed, index, list(LABELS).index(method)])
        noise = rng.normal(scale=0.05, size=num_images)
        level = LEVELS[method] + 0.08 * np.sin(index) + rng.normal(scale=0.003)
        correct[task] = hardness + noise < level
    return correct


def make_run(method="tsv_merge", seed=0, tasks=TASKS, num_images=200, **changes):
    """(Run, correct), the Run with ``changes`` to its fields."""
    correct = make_correct(method, seed, tasks, num_images)
    individual = make_correct("individual", seed, tasks, num_images)
    accuracy = {task: float(c.mean()) for task, c in correct.items()}
    normalizer = {task: float(c.mean()) for task, c in individual.items()}
    alphas = np.linspace(0, GRIDS[method], 31)[1:] if method in GRIDS else np.array([])
    best = {"task_arithmetic": 0.23, "ties": 0.7, "tsv_merge": 1.0}.get(method, 1.0) + 0.1 * seed
    curve = 0.9 - 0.1 * (alphas - best) ** 2 / best
    number = 10 * list(LABELS).index(method) + seed
    fields = {
        "backbone": "mini",
        "suite": "mini8",
        "method": method,
        "label": LABELS[method],
        "seed": seed,
        "knobs": {"rank_fraction": None, "polar": "svd"} if method == "tsv_merge" else {},
        "tasks": {task: task.capitalize() for task in tasks},
        "alpha": float(alphas[curve.argmax()]) if len(alphas) else 1.0,
        "alpha_curve": [
            {"alpha": float(a), "normalized": float(n)} for a, n in zip(alphas, curve, strict=True)
        ],
        "test": {t: Score(accuracy=accuracy[t], correct=int(c.sum()), total=num_images)
                 for t, c in correct.items()},
        "val": {},
        "absolute": float(np.mean(list(accuracy.values()))),
        "normalized": float(np.mean([accuracy[t] / normalizer[t] for t in tasks])),
        "normalizer": normalizer,
        "normalizer_source": "fine-tuned here, same images",
        "seconds": {"merge": 0.7 + number / 100, "alpha": 3.1, "test": 1 / 3},
        "peak_memory": 700_000_000,
        "task_known": method in ("tsv_compress", "individual"),
        "checkpoints": {
            "pretrained": {"sha256": "0" * 64, "generation": "pretrain"},
            **{t: {"sha256": f"{seed}{t}", "generation": "finetune"} for t in tasks},
        },
        "data": {task: f"data-{task}" for task in tasks},
        "settings": {"suite": {"tasks": list(tasks)}, "seed": seed},
        "fingerprint": f"{number:012x}",
        "versions": {"torch": "2.9.0"},
        "commit": "1234567",
        "machine": "2 cores",
        "created": (datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=number)).isoformat(),
    }  # fmt: skip
    return Run(**(fields | changes)), correct


def at_edges(run):
    """The Run, its alpha and a knob that was chosen for a task at the edge of their candidates."""
    largest = run.alpha_curve[-1]["alpha"]
    settings = run.settings | {"method": {"candidates": [0.1, 0.2]}}
    knobs = {"land": {"density": 0.2}}
    return replace(run, alpha=largest, task_knobs=knobs, settings=settings)


def of_generation(run, generation):
    """The Run's checkpoints, said to be of another generation; a task's own by a dict."""
    named = generation if isinstance(generation, dict) else dict.fromkeys(run.tasks, generation)
    return {
        task: checkpoint | ({"generation": named[task]} if task in named else {})
        for task, checkpoint in run.checkpoints.items()
    }


def make_vision_run(
    method="tsv_merge", suite="vision8", backbone="vit_b32", generation="original", **changes
):
    """(Run, correct) of a suite that figures are published for."""
    tasks = tuple(published.suites()[suite])
    changes = {"tasks": tasks, "suite": suite, "backbone": backbone, "num_images": 100} | changes
    run, correct = make_run(method, **changes)
    return replace(run, checkpoints=of_generation(run, generation)), correct


def router_scores(found, oracle, head_found, tasks=("digits", "signs"), num_images=10):
    """The scores of a router that are the same on each task."""
    return RouterScores(
        **{
            kind: dict.fromkeys(
                tasks, Score(accuracy=share, correct=round(share * num_images), total=num_images)
            )
            for kind, share in (("found", found), ("oracle", oracle), ("head_found", head_found))
        }
    )
