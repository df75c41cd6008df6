"""What the json of a Run may hold: fields of the annotated types, which fit each other."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from reprlib import repr as short  # a damaged value may be of any size
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from tsv_bench.wording.escaping import check_line, check_name

FRACTIONS = {"accuracy", "absolute", "normalizer", "share"}  # at most 1
LARGEST = 2**53  # of the other numbers: floats hold all whole numbers up to it
SPLITS = ("train", "val", "test")
MAX_TASKS = 1000
MAX_KNOBS = 10_000  # characters of json; they stand in the labels of rows
MAX_DETAILS = 1_000_000  # characters of json
MAX_DEPTH = 20  # of what a method's knobs and the settings may hold
FILE_NAMES = ("backbone", "suite", "method", "fingerprint")  # fields that become file names
JSON_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false",
              int: "a whole number", float: "a number"}  # fmt: skip


def check_fields(content: Any, of: type, place: str = "") -> None:
    """Check that json holds the fields of a dataclass, each of its annotated type.

    ``place`` says where in the json it stands. Raises ValueError that names the first wrong field.
    """
    known = {field.name: field for field in fields(of)}
    # Fields with defaults are newer than some Runs.
    needed = {n for n, f in known.items() if f.default is f.default_factory is MISSING}
    found = set(content) if isinstance(content, dict) else set()
    if odd := (needed - found) | (found - set(known)):
        raise ValueError(
            f"{len(odd)} fields are missing or unknown, first {place}{short(min(odd))}."
        )
    kinds = get_type_hints(of)
    for name, value in content.items():
        check_value(value, kinds[name], f"{place}{name}", 1 if name in FRACTIONS else LARGEST)


def check_value(value: Any, kind: Any, place: str, largest: int) -> None:
    """Check a value of json against an annotation; numbers lie in [0, ``largest``].

    Raises ValueError that says where the first wrong value stands.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:  # X | None
        if value is not None:
            check_value(value, arguments[0], place, largest)
    elif is_dataclass(kind):
        check_fields(value, kind, f"{place}.")
    elif kind is Any:
        check_depth(value, place)
    elif not _is_a(value, origin or kind):
        raise ValueError(f"its {place} is {short(value)}, not {JSON_NAMES[origin or kind]}.")
    elif origin is dict:
        for key, item in value.items():
            check_line(key, f"a key of its {place}")
            check_value(item, arguments[1], f"{place}[{short(key)}]", largest)
    elif origin is list:
        for index, item in enumerate(value):
            check_value(item, arguments[0], f"{place}[{index}]", largest)
    elif kind is str:
        check_line(value, f"its {place}")
    elif kind is not bool and not 0 <= value <= largest:
        raise ValueError(f"its {place} is {short(value)}, not a number from 0 to {largest}.")


def check_depth(value: Any, place: str, depth: int = MAX_DEPTH) -> None:
    """Check that lists and objects are nested at most ``depth`` deep. Raises ValueError if not."""
    if isinstance(value, dict | list):
        if depth == 0:
            raise ValueError(f"its {place} is nested more than {MAX_DEPTH} deep.")
        for item in value.values() if isinstance(value, dict) else value:
            check_depth(item, place, depth - 1)


def _is_a(value: Any, kind: type) -> bool:
    """Return whether a value of json is of this type; true and false are no numbers."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def check_agreement(content: Mapping[str, Any]) -> None:
    """Check that the fields of a Run, which have the right types, fit each other.

    Raises ValueError that names the first field that does not.
    """
    tasks = content["tasks"]
    for name in FILE_NAMES:
        check_name(content[name], f"its {name}")
    if not 1 <= len(tasks) <= MAX_TASKS:
        raise ValueError(f"it has {len(tasks)} tasks, not 1 to {MAX_TASKS}.")
    for task in tasks:
        check_name(task, "the name of a task")
    if (length := len(json.dumps(content["knobs"]))) > MAX_KNOBS:
        raise ValueError(f"its knobs have {length} characters, not up to {MAX_KNOBS}.")
    if (length := len(json.dumps(content.get("details", {})))) > MAX_DETAILS:
        raise ValueError(f"its details have {length} characters, not up to {MAX_DETAILS}.")
    if odd := set(tasks) ^ set(content["test"]):
        raise ValueError(f"its tasks and its test accuracies differ, first in {min(odd)!r}.")
    for split in ("test", "val"):
        _check_scores(content[split], split)
    for name, scores in (content.get("router") or {}).items():
        if odd := set(tasks) ^ set(scores):
            raise ValueError(f"its tasks and its router.{name} differ, first in {min(odd)!r}.")
        _check_scores(scores, f"router.{name}")
    _check_generalization(content)
    if not all(set(point) == {"alpha", "normalized"} for point in content["alpha_curve"]):
        raise ValueError("a point of its alpha_curve has other keys than alpha and normalized.")
    if zero := [task for task, accuracy in content["normalizer"].items() if accuracy == 0]:
        raise ValueError(f"its normalizer of {zero[0]!r} is 0, by which nothing can be divided.")
    seen = content.get("seen")
    if seen and (seen["split"] not in SPLITS or not seen["images"]):
        raise ValueError(f"its seen is {short(seen)}: no images, or of no split of a task.")
    try:
        datetime.fromisoformat(content["created"])
    except ValueError as error:
        created = short(content["created"])
        raise ValueError(f"its created is {created}, not an ISO 8601 time.") from error
    _check_settings(content["settings"])


def _check_generalization(content: Mapping[str, Any]) -> None:
    """Check what a Run says of unseen tasks and of corrupted images."""
    tasks = set(content["tasks"])
    if unseen := content.get("unseen"):
        others = set(unseen["tasks"])
        if both := tasks & others:
            raise ValueError(f"its task {min(both)!r} is merged, and unseen as well.")
        for name in ("test", "normalizer"):
            if odd := others ^ set(unseen[name]):
                raise ValueError(f"its unseen.tasks and unseen.{name} differ, in {min(odd)!r}.")
        for task in others:
            check_name(task, "the name of an unseen task")
        if not others or 0 in unseen["normalizer"].values():
            raise ValueError("its unseen has no task, or divides by a normalizer of 0.")
        _check_scores(unseen["test"], "unseen")
    if corrupted := content.get("corrupted"):
        if not 1 <= corrupted["severity"] <= 5 or not corrupted["test"]:
            raise ValueError(
                f"its corrupted has severity {corrupted['severity']}, not 1 to 5, or no corruption."
            )
        for name, scores in corrupted["test"].items():
            check_name(name, "the name of a corruption")
            if odd := tasks ^ set(scores):
                raise ValueError(f"its tasks and its corrupted {name} differ, in {min(odd)!r}.")
            _check_scores(scores, name)


def _check_scores(scores: Mapping[str, Mapping[str, float]], split: str) -> None:
    for task, score in scores.items():
        correct, total = score["correct"], score["total"]
        if not (correct <= total and total and math.isclose(score["accuracy"], correct / total)):
            raise ValueError(
                f"its {split} accuracy on {task!r} is {score['accuracy']} with {correct} of "
                f"{total} images right, which cannot be."
            )


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Check the parts of the settings that tables and normalizers read. Older Runs lack some."""
    evaluation = settings.get("evaluation", {})
    for name, part in (("evaluation", evaluation), ("tasks", settings.get("tasks", {}))):
        if not isinstance(part, dict):
            raise ValueError(f"its settings[{name!r}] is {short(part)}, not an object.")
    check_line(evaluation.get("precision", ""), "its settings['evaluation']['precision']")
