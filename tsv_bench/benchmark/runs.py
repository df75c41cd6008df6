"""Runs on disk: one json for each evaluated method, and beside it the per-image correctness."""

import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from tsv_bench.files import replace_atomically
from tsv_bench.scores import Score

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One evaluated method with its backbone and suite; the unit of results and of every table."""

    backbone: str
    suite: str
    method: str
    label: str
    seed: int  # of the fine-tuning
    knobs: dict[str, Any]  # of the method, as in its yaml
    tasks: dict[str, str]  # task -> label, in the suite's order
    alpha: float
    alpha_curve: list[dict[str, float]]  # {"alpha", "normalized"} on validation; [] when fixed
    test: dict[str, Score]
    val: dict[str, Score]  # at the chosen alpha; {} when it is fixed
    absolute: float  # mean over tasks of test accuracy, in [0, 1]
    normalized: float  # mean over tasks of test accuracy / normalizer
    normalizer: dict[str, float]  # task -> test accuracy of its own fine-tuned model
    normalizer_source: str
    seconds: dict[str, float]  # stage -> wall time
    peak_memory: int  # resident, bytes
    stored_bytes: int | None = None  # beside the pretrained backbone, of all tasks together
    task_known: bool = False  # whether each task is served its own: it must be known at inference
    task_knobs: dict[str, dict[str, Any]] = field(default_factory=dict)  # task -> chosen for it
    checkpoints: dict[str, dict[str, Any]]  # task or "pretrained" -> {"sha256", "generation"}
    data: dict[str, str]  # task -> fingerprint of its data
    variants: dict[str, str] = field(default_factory=dict)  # task -> in what it deviates
    settings: dict[str, Any]  # the resolved configuration that determines the result
    fingerprint: str  # sha256 of settings, first 12 digits
    versions: dict[str, str]
    commit: str  # of this repository, "-dirty" when it was
    machine: str
    created: str  # ISO 8601, UTC


def save_run(run: Run, correct: Mapping[str, np.ndarray], folder: Path) -> Path:
    """Write a Run and its per-image correctness; return the json's path.

    ``correct``: task -> which test images were classified correctly, bool [images]. A Run with the
    same settings is replaced; a reader sees the old files or the new ones, never a part.
    """
    for task, score in run.test.items():
        assert (int(correct[task].sum()), len(correct[task])) == (score.correct, score.total), task
    path = Path(folder) / run.backbone / run.suite / f"{run.method}-{run.fingerprint}.json"
    text = json.dumps(asdict(run), indent=1, allow_nan=False)
    # The json comes last, so that a reader who finds it finds the bits too.
    bits = {task: np.asarray(c, bool) for task, c in correct.items()}
    replace_atomically(path.with_suffix(".npz"), lambda temporary: save_bits(temporary, bits))
    replace_atomically(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    return path


def save_bits(path: Path, bits: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # a path would get numpy's suffix appended
        np.savez_compressed(file, **bits)


def load_run(path: Path) -> Run:
    """Read the Run of one json file. Raises ValueError if the file is damaged or no Run."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable json: {error}.") from error
    known = {f.name for f in fields(Run)}
    # Fields with defaults are newer than some Runs.
    needed = {f.name for f in fields(Run) if f.default is f.default_factory is MISSING}
    found = set(content) if isinstance(content, dict) else set()
    if odd := (needed - found) | (found - known):
        raise ValueError(
            f"{path} is not a Run: {len(odd)} fields are missing or unknown, first {min(odd)!r}."
        )
    try:
        for split in ("test", "val"):
            content[split] = {task: Score(**score) for task, score in content[split].items()}
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a Run: its {split!r} holds no scores.") from error
    return Run(**content)


def load_correct(path: Path) -> dict[str, np.ndarray]:
    """Read task -> which test images were classified correctly, bool [images].

    ``path``: of the Run's json. Raises ValueError if the file beside it is missing or damaged.
    """
    path = Path(path).with_suffix(".npz")
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {task: arrays[task] for task in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read per-image correctness from {path}: {error}.") from error


def find_runs(folder: Path, **equal: Any) -> list[tuple[Path, Run]]:
    """Find every Run below ``folder`` with these values of its fields, in the order of the paths.

    A json file that is damaged or no Run is skipped with a warning.
    """
    found = []
    for path in sorted(Path(folder).rglob("*.json")):
        try:
            run = load_run(path)
        except (ValueError, OSError) as error:
            log.warning("skipped: %s", error)
            continue
        if all(getattr(run, name) == value for name, value in equal.items()):
            found.append((path, run))
    return found
