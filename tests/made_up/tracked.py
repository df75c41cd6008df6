"""A Run, and the tracker that logs it offline."""

import torch

from tsv_bench.benchmark.runs import Run, Score
from tsv_bench.report.tracking import WandbTracker

PRETRAINED = {"w": torch.tensor([[1.0, 2.0]]), "steps": torch.tensor(7)}
SERVED = {"digits": {"w": torch.tensor([[10.0, 0.0]])}, "shapes": {"w": torch.tensor([[0.0, 5.0]])}}
MODELS = {"digits": [[3.0, 2.0]], "shapes": [[1.0, 3.0]]}  # at RUN's alpha, 0.2
RUN = Run(
    backbone="mini",
    suite="mini2",
    method="tsv_merge",
    label="TSV-M",
    seed=0,
    knobs={"rank_fraction": None, "polar": "svd"},
    tasks={"digits": "Digits", "shapes": "Shapes"},
    alpha=0.2,
    alpha_curve=[
        {"alpha": 0.1, "normalized": 0.5},
        {"alpha": 0.2, "normalized": 0.75},
        {"alpha": 0.3, "normalized": 0.625},
    ],
    test={
        "digits": Score(accuracy=0.5, correct=5, total=10),
        "shapes": Score(accuracy=0.75, correct=15, total=20),
    },
    val={
        "digits": Score(accuracy=0.5, correct=5, total=10),
        "shapes": Score(accuracy=0.5, correct=5, total=10),
    },
    absolute=0.625,
    normalized=0.8125,
    normalizer={"digits": 0.625, "shapes": 0.9375},
    normalizer_source="this project's own fine-tuned models",
    seconds={"merge": 1.5, "test": 2.5},
    peak_memory=1 << 30,
    checkpoints={
        "pretrained": {"sha256": "ab" * 32, "generation": "mini"},
        "digits": {"sha256": "cd" * 32, "generation": "finetune"},
        "shapes": {"sha256": "ef" * 32, "generation": "other"},
    },
    data={"digits": "123", "shapes": "456"},
    settings={"suite": {"name": "mini2"}, "alphas": [0.1, 0.2, 0.3]},
    fingerprint="0123456789ab",
    versions={"torch": "2"},
    commit="c0ffee",
    machine="two cores",
    created="2025-01-01T00:00:00+00:00",
)


def tracker(folder, **settings):
    chosen = dict.fromkeys(("entity", "experiment", "group", "mode")) | {"project": "tests"}
    return WandbTracker(**(chosen | {"tags": [], "artifact": False, "dir": folder} | settings))
