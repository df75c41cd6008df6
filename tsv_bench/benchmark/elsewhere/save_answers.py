"""A Run of answers that were collected elsewhere: tables, page and comparisons read it as any."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tsv_bench import provenance
from tsv_bench.benchmark.doubts import doubts
from tsv_bench.benchmark.elsewhere.answers import EXAMPLES, Answers
from tsv_bench.benchmark.run_content import check_agreement, check_fields
from tsv_bench.benchmark.runs import Run, save_run
from tsv_bench.observation.statistics_file import identity
from tsv_bench.scores import normalized_accuracy, score
from tsv_bench.state_dicts.adapters.adapted import open_checkpoint
from tsv_bench.state_dicts.adapters.inputs import config_hash
from tsv_bench.state_dicts.integrity import content_hash
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.state_dicts.writer import MADE_BY

LABELS = {"individual": "Individual", "zero_shot": "Zero-shot"}
NORMALIZER = "fine-tuned models, same examples"
# Settings of tsv-merge that tell rows apart, as knobs do.
BESIDE_KNOBS = ("alpha", "weights", "stacked", "kernels")

log = logging.getLogger(__name__)


def save_answers(
    answers: Answers,
    *,
    runs: Path | str,
    model: str,
    suite: str,
    merged: Path | str | None = None,
    method: str | None = None,
    label: str | None = None,
    knobs: Mapping[str, Any] | None = None,
    alpha: float | None = None,
    checkpoints: Mapping[str, Path | str] | None = None,
    individual: Run | None = None,
    task_known: bool = False,
    labels: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Run:
    """Save the Run of a model's answers in the folder ``runs`` and return it.

    ``model``: what was pretrained, the Run's backbone. ``suite``: a name for these tasks.
    ``merged``: an output of tsv-merge, which says method, knobs, alpha and checkpoints itself;
    alpha is a knob then, so that merges which differ in it are rows of their own. For other
    models they are arguments: ``method`` is "zero_shot" for the pretrained model, "individual" for
    the tasks' own fine-tuned ones, or any name; ``checkpoints`` are "pretrained" and a task -> its
    path; ``alpha`` is 1 unless given. ``individual``: the Run of the fine-tuned models, by which
    accuracies are normalized. ``task_known``: whether each task was answered by a model of its
    own. ``labels``: task -> its name in tables. ``seed``: of the fine-tuning.

    A Run of the same settings is replaced. Raises ValueError for what no Run can be.
    """
    method, knobs, alpha, hashes = _settled(merged, method, knobs, alpha, checkpoints)
    correct = answers.correct
    tasks = {task: (labels or {}).get(task, task) for task in correct}
    data = {task: answers.data.get(task, f"{len(c)} examples") for task, c in correct.items()}
    test = {task: score(bits) for task, bits in correct.items()}
    accuracy = {task: found.accuracy for task, found in test.items()}
    normalizer = _normalizer(method, accuracy, data, individual)
    evaluation = {"precision": "unknown", **answers.evaluation, "unit": EXAMPLES}
    settings = {
        "backbone": {"name": model},
        "tasks": {
            task: {"data": data[task], "variant": answers.variants.get(task, "")} for task in tasks
        },
        "method": {"name": method, "knobs": knobs, "alpha": alpha},
        "checkpoints": hashes,
        "evaluation": evaluation,
        "seed": seed,
    }
    text = json.dumps(settings, sort_keys=True)
    run = Run(
        backbone=model,
        suite=suite,
        method=method,
        label=label or LABELS.get(method, method),
        seed=seed,
        knobs=knobs,
        tasks=tasks,
        alpha=alpha,
        alpha_curve=[],
        test=test,
        val={},
        absolute=sum(accuracy.values()) / len(accuracy),
        normalized=normalized_accuracy(accuracy, normalizer) if normalizer else 0.0,
        normalizer=normalizer,
        normalizer_source=NORMALIZER if normalizer else "none",
        seconds={},
        peak_memory=0,
        task_known=task_known or method == "individual",
        checkpoints={name: {"sha256": sha256, "generation": "other"}
                     for name, sha256 in hashes.items()},
        data=data,
        variants=dict(answers.variants),
        settings=settings,
        fingerprint=hashlib.sha256(text.encode()).hexdigest()[:12],
        versions=provenance.versions(),
        commit=provenance.commit(),
        machine="elsewhere",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    content = json.loads(json.dumps(asdict(run)))
    check_fields(content, Run)  # what is no Run would be passed over by all that read some
    check_agreement(content)
    for sentence in doubts(run):
        log.warning(sentence)
    save_run(run, correct, Path(runs))
    return run


def _settled(
    merged: Path | str | None,
    method: str | None,
    knobs: Mapping[str, Any] | None,
    alpha: float | None,
    checkpoints: Mapping[str, Path | str] | None,
) -> tuple[str, dict[str, Any], float, dict[str, str]]:
    """Return method, knobs, alpha, and the sha256 of each checkpoint."""
    if merged is None:
        if method is None:
            raise ValueError(
                "whose answers are these? Give merged=FOLDER of tsv-merge, or method=."
            )
        alpha = 1.0 if alpha is None else alpha
        return method, dict(knobs or {}), alpha, _hashes(checkpoints or {})
    given = {"method": method, "knobs": knobs, "alpha": alpha, "checkpoints": checkpoints}
    if odd := [name for name, value in given.items() if value is not None]:
        raise ValueError(f"merged= says its {odd[0]} itself: leave {odd[0]}= out.")
    about = _how_made(Path(merged))
    recorded = about.get("alpha", 1.0)
    number = recorded["default"] if isinstance(recorded, dict) else recorded
    return (
        about["method"],
        {**about["knobs"], **{name: about[name] for name in BESIDE_KNOBS if name in about}},
        number,
        {name: identity(files) for name, files in about["inputs"].items()},
    )


def _how_made(path: Path) -> dict[str, Any]:
    """Return what tsv-merge wrote into its output about how that was made."""
    for file in open_state_dict(path).parts.values():
        if MADE_BY in file.metadata:
            return json.loads(file.metadata[MADE_BY])
    raise ValueError(
        f"{path} does not say how it was merged, as safetensors of tsv-merge do. Say it by "
        f"method=, knobs=, alpha= and checkpoints=."
    )


def _hashes(checkpoints: Mapping[str, Path | str]) -> dict[str, str]:
    """Return the hash of each checkpoint that tsv-merge, too, has for it."""
    found = {}
    for name, path in checkpoints.items():
        like = None if name == "pretrained" else checkpoints.get("pretrained")
        state = open_checkpoint(path, like).stored
        files = {file: content_hash(part.path) for file, part in state.parts.items()}
        found[name] = identity(files | config_hash(state))
    return found


def _normalizer(
    method: str, accuracy: Mapping[str, float], data: Mapping[str, str], individual: Run | None
) -> dict[str, float]:
    """Return each task's accuracy of its own fine-tuned model; {} if nobody measured them."""
    if method == "individual":
        return dict(accuracy)
    if individual is None:
        return {}
    for task in accuracy:
        if individual.data.get(task) != data[task]:
            found = individual.data.get(task, "no answers")
            raise ValueError(
                f"the individual models answered {task!r} on other examples ({found}, here "
                f"{data[task]}): ask all models the same."
            )
    return {task: individual.test[task].accuracy for task in accuracy}
