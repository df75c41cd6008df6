"""Runs on disk: one json for each evaluated method, and beside it the per-image correctness."""

import io
import json
import logging
import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tsv_bench.benchmark.beyond.records import Corrupted, Unseen
from tsv_bench.benchmark.run_content import FILE_NAMES, check_agreement, check_fields
from tsv_bench.files import paths_below, read_small, replace_atomically, replace_text
from tsv_bench.files.content import MOST_BYTES
from tsv_bench.scores import Score
from tsv_bench.wording.escaping import check_name, visible

log = logging.getLogger(__name__)

# What data a method saw, beside the validation images by which alpha is chosen.
DATA_KINDS = ("none", "unlabelled val", "labelled val", "train", "test-time")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The data that a method saw, beside the validation images by which alpha is chosen."""

    split: str  # "train", "val" or "test", which is test-time adaptation
    images: int  # of each task, the mean if a share of the split was seen
    labels: bool  # whether it used their labels
    forward_passes: int  # images that passed through a network, counted each time
    backward_passes: int
    seconds: float  # to gather or to learn; of statistics that were kept, when they were gathered
    share: float | None = None  # of the split; None: a number of images

    @property
    def kind(self) -> str:
        """Which of `DATA_KINDS` the images are."""
        if self.split == "test":
            return "test-time"
        return self.split if self.split == "train" else f"{self._labelled} {self.split}"

    @property
    def text(self) -> str:
        """What the column *data* of a table says: "32 unlabelled val", "all labelled train"."""
        split = "test-time" if self.split == "test" else self.split
        images = self.images
        if self.share is not None:
            images = "all" if self.share == 1 else f"{100 * self.share:g}%"
        return f"{images} {self._labelled} {split}"

    @property
    def _labelled(self) -> str:
        return "labelled" if self.labels else "unlabelled"


@dataclass(frozen=True, kw_only=True)
class RouterScores:
    """How the router of a method did on the test images: task -> score."""

    found: dict[str, Score]  # images whose task it found
    oracle: dict[str, Score]  # images right if each went to its own task's expert
    head_found: dict[str, Score]  # right with the head of the found task: a wrong task is wrong


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
    val: dict[str, Score]  # at the chosen alpha; {} when it is fixed and nobody asked
    absolute: float  # mean over tasks of test accuracy, in [0, 1]
    normalized: float  # mean over tasks of test accuracy / normalizer
    normalized_val: float | None = None  # the same on ``val``; older Runs with a curve lack it
    normalizer: dict[str, float]  # task -> test accuracy of its own fine-tuned model
    normalizer_source: str
    seconds: dict[str, float]  # stage -> wall time
    peak_memory: int  # resident, bytes
    stored_bytes: int | None = None  # beside the pretrained backbone, of all tasks together
    task_known: bool = False  # whether each task is served its own: it must be known at inference
    task_knobs: dict[str, dict[str, Any]] = field(default_factory=dict)  # task -> chosen for it
    seen: Seen | None = None  # None: no data
    router: RouterScores | None = None  # None: the method has none
    unseen: Unseen | None = None  # None: all tasks were merged
    corrupted: Corrupted | None = None  # None: images as they are, alone
    details: dict[str, Any] = field(default_factory=dict)  # what the method noted, by its name
    checkpoints: dict[str, dict[str, str]]  # task or "pretrained" -> {"sha256", "generation"}
    data: dict[str, str]  # task -> fingerprint of its data
    variants: dict[str, str] = field(default_factory=dict)  # task -> in what it deviates
    settings: dict[str, Any]  # the resolved configuration that determines the result
    fingerprint: str  # sha256 of settings, first 12 digits
    versions: dict[str, str]
    commit: str  # of this repository, "-dirty" when it was
    machine: str
    created: str  # ISO 8601, UTC

    @property
    def validation(self) -> float | None:
        """The mean normalized accuracy on validation at the chosen alpha; None: not evaluated."""
        if self.normalized_val is not None:
            return self.normalized_val
        return {p["alpha"]: p["normalized"] for p in self.alpha_curve}.get(self.alpha)

    @property
    def scores(self) -> dict[str, Score]:
        """Every score on test images, by the name of its per-image correctness."""
        found = self.test | (self.unseen.test if self.unseen else {})
        for corruption, of_task in self.corrupted.test.items() if self.corrupted else ():
            found |= {Corrupted.key(corruption, task): s for task, s in of_task.items()}
        return found


def save_run(run: Run, correct: Mapping[str, np.ndarray], folder: Path) -> Path:
    """Write a Run and its per-image correctness; return the json's path.

    ``correct``: which test images were classified correctly, bool [images], by the names of
    `Run.scores`. A Run with the
    same settings is replaced; a reader sees the old files or the new ones, never a part. Raises
    ValueError if a name that becomes a part of the path may not.
    """
    for name in FILE_NAMES:
        check_name(getattr(run, name), f"the Run's {name}")
    for task, score in run.scores.items():
        assert (int(correct[task].sum()), len(correct[task])) == (score.correct, score.total), task
    path = Path(folder) / run.backbone / run.suite / f"{run.method}-{run.fingerprint}.json"
    text = json.dumps(asdict(run), indent=1, allow_nan=False)
    # The json comes last, so that a reader who finds it finds the bits too.
    bits = {task: np.asarray(c, bool) for task, c in correct.items()}
    replace_atomically(path.with_suffix(".npz"), lambda temporary: save_bits(temporary, bits))
    replace_text(path, text + "\n")
    return path


def save_bits(path: Path, bits: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # a path would get numpy's suffix appended
        np.savez_compressed(file, **bits)


def load_run(path: Path) -> Run:
    """Read the Run of one json file.

    Raises ValueError if the file is damaged or no Run, OSError if it cannot be read.
    """
    try:
        content = json.loads(
            read_small(path).decode("utf-8"), parse_float=_finite, parse_constant=_finite
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable json: {error}.") from error
    try:
        check_fields(content, Run)
        check_agreement(content)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # fails at half a character
    except ValueError as error:
        raise ValueError(f"{path} is not a Run: {error}") from error
    for split in ("test", "val"):
        content[split] = _scores(content[split])
    if content.get("seen"):
        content["seen"] = Seen(**content["seen"])
    if content.get("router"):
        found = content["router"].items()
        content["router"] = RouterScores(**{name: _scores(scores) for name, scores in found})
    if content.get("unseen"):
        content["unseen"] = Unseen(
            **content["unseen"] | {"test": _scores(content["unseen"]["test"])}
        )
    if content.get("corrupted"):
        found = content["corrupted"]["test"].items()
        content["corrupted"] = Corrupted(
            **content["corrupted"] | {"test": {name: _scores(scores) for name, scores in found}}
        )
    return Run(**content)


def _scores(content: Mapping[str, Mapping[str, Any]]) -> dict[str, Score]:
    return {task: Score(**score) for task, score in content.items()}


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number[:80]} is not a finite number")
    return value


def load_correct(path: Path, run: Run | None = None) -> dict[str, np.ndarray]:
    """Read which test images were classified correctly, bool [images], by task.

    Those of corrupted images are there by `Corrupted.key`.
    ``path``: of the Run's json. Raises ValueError if the file beside it is missing or damaged, or
    if it is not of ``run``, as after an interruption between the two files of a Run that replaces
    another.
    """
    path = Path(path).with_suffix(".npz")
    try:
        with zipfile.ZipFile(io.BytesIO(read_small(path))) as archive:
            members = archive.infolist()
            if (unpacked := sum(member.file_size for member in members)) > MOST_BYTES:
                raise ValueError(f"unpacked it has {unpacked} bytes, not up to {MOST_BYTES}")
            correct = {m.filename.removesuffix(".npy"): read_bits(archive, m) for m in members}
    except Exception as error:  # whatever a damaged file makes zipfile, zlib or numpy raise
        raise ValueError(f"cannot read per-image correctness from {path}: {error}.") from error
    for task, score in run.scores.items() if run else ():
        bits = correct.get(task, np.zeros(0, bool))
        if (int(bits.sum()), bits.size) != (score.correct, score.total):
            raise ValueError(
                f"the per-image correctness beside {path.with_suffix('.json')} is of another Run: "
                f"{task!r} has {int(bits.sum())} of {bits.size} images right, the Run "
                f"{score.correct} of {score.total}. Run it again with overwrite=true."
            )
    return correct


def read_bits(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Read an array of bools, [images], from a member of an npz.

    Not by numpy, which reserves the memory of whatever shape the member claims. Raises ValueError
    for another array.
    """
    with archive.open(member) as file:
        content = io.BytesIO(file.read(member.file_size))  # a lying size unpacks no more than it
    np.lib.format.read_magic(content)
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    values = np.frombuffer(content.read(), np.uint8)
    if dtype != np.dtype(bool) or shape != values.shape or values.max(initial=0) > 1:
        raise ValueError(
            f"{member.filename} holds {dtype} of shape {shape} in {values.size} bytes, not true "
            f"or false for each image"
        )
    return values.astype(bool)


def find_runs(folder: Path, **equal: Any) -> list[tuple[Path, Run]]:
    """Find every Run below ``folder`` with these values of its fields, in the order of the paths.

    A json file that is damaged or no Run is skipped with a warning. Those that another process is
    writing are not looked at.
    """
    paths = sorted(paths_below(folder, ".json"))
    if "fingerprint" in equal:  # a folder may have hundreds, and to check one takes milliseconds
        paths = [path for path in paths if _mentions(path, equal["fingerprint"])]
    return [
        (path, run)
        for path, run in read_runs(paths)
        if all(getattr(run, name) == value for name, value in equal.items())
    ]


def _mentions(path: Path, fingerprint: str) -> bool:
    """Return whether a file's name or content has the fingerprint, or it cannot be read."""
    try:
        return fingerprint in path.name or fingerprint.encode() in read_small(path)
    except (ValueError, OSError):
        return True


def read_runs(paths: Iterable[Path]) -> list[tuple[Path, Run]]:
    """Read the Runs of these files; one that is damaged or no Run is skipped with a warning."""
    found = []
    for path in paths:
        try:
            found.append((path, load_run(path)))
        except (ValueError, OSError) as error:
            log.warning("skipped: %s", visible(str(error)))
    return found
