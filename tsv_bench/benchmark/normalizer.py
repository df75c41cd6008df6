"""The accuracy of each task's own fine-tuned model, by which others are divided."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsv_bench.benchmark.runs import find_runs
from tsv_bench.scores import Score

if TYPE_CHECKING:  # it takes torch
    from tsv_bench.methods.method import Method


def serves_own_models(method: "Method") -> bool:
    """Return whether the method serves the models themselves by which others are normalized."""
    return method.name == "individual" and method.alphas == [1.0]


def find_normalizer(
    folder: Path,
    *,
    backbone: str,
    checkpoints: Mapping[str, str],
    data: Mapping[str, str],
    variants: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Score]]:
    """Find task -> split -> score of its individual model, in the Runs of method=individual.

    A Run of any suite counts for a task if all of these are the same in it; the newest one wins.
    ``checkpoints``: task or "pretrained" -> sha256; ``data``: task -> fingerprint; ``variants``:
    task -> `Task.variant`; ``settings``: as `Run.settings`, compared in the task's part and the
    precision. A task without such a Run is left out, as is "val" if its Run has no validation
    accuracy.
    """
    wanted = dict(variants or {})
    settings = settings or {}
    found: dict[str, dict[str, Score]] = {}
    runs = [
        run
        for _, run in find_runs(Path(folder) / backbone, backbone=backbone, method="individual")
        if run.checkpoints.get("pretrained", {}).get("sha256") == checkpoints["pretrained"]
    ]
    for run in sorted(runs, key=lambda run: run.created):
        for task, score in run.test.items():
            same = (
                task in data
                and task in checkpoints
                and run.data.get(task) == data[task]
                and run.checkpoints.get(task, {}).get("sha256") == checkpoints[task]
                and run.variants.get(task, "") == wanted.get(task, "")
                and ("tasks" not in settings or _same(run.settings, settings, task))
            )
            if same:
                splits = {"test": score, "val": run.val.get(task)}
                found[task] = {split: s for split, s in splits.items() if s is not None}
    return found


def _same(settings: Mapping[str, Any], wanted: Mapping[str, Any], task: str) -> bool:
    """Return whether prompts, data and checkpoint of the task and the precision are the same."""
    pairs = [(s.get("tasks", {}).get(task), s.get("evaluation", {}).get("precision"))
             for s in (settings, wanted)]  # fmt: skip
    return pairs[0] == pairs[1]
