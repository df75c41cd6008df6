"""Runs that are damaged or hostile, each in one place: their json, and what lies in their place."""

import os
from copy import deepcopy

import numpy as np

# Each is wrong in every field but those whose values have its type.
VALUES = (None, "text", -1, 1.5, True, [[]], {"land": [[]]}, 10**400)
MAY_BE = {
    "str": ("text",),
    "bool": (True,),
    "int": (),
    "float": (1.5,),
    "dict": (),
    "list": (),
    "NoneType": (None,),
}
TAKE_ANY = {"knobs", "settings", "details"}  # any object
MAY_LACK = {
    "stored_bytes",
    "task_known",
    "task_knobs",
    "variants",
    "seen",
    "router",
    "unseen",
    "corrupted",
    "details",
}  # newer than some Runs
ROUTER = ("found", "oracle", "head_found")
NAMES = ("backbone", "suite", "method", "fingerprint")
NO_NAMES = ("../../x", "/x", "..", "", ".x", "a\nb", "\x1b[31m", "x" * 300)


def damaged_contents(content):
    """Yield (name, content, what the message says) of a good Run's json, damaged in one place."""
    for name, value in content.items():
        if name not in MAY_LACK:
            yield f"no {name}", {k: v for k, v in content.items() if k != name}, repr(name)
        kind = type(value).__name__
        for other in VALUES:
            same = other in MAY_BE[kind] and type(other) is type(value)
            optional = name == "stored_bytes" and other is None
            if not (same or optional or (name in TAKE_ANY and isinstance(other, dict))):
                yield f"{name} {str(other)[:9]}", content | {name: other}, name
    yield "a field more", content | {"extra": 1}, "extra"
    for name in NAMES:
        for odd in NO_NAMES:
            yield f"{name} {odd[:9]!r}", content | {name: odd}, f"its {name} is"
    for place, value, message in deep_damages(content):
        damaged = deepcopy(content)
        inside = damaged
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = value
        yield f"{'.'.join(map(str, place))[:60]!r} {str(value)[:9]!r}", damaged, message


def deep_damages(content):
    """Yield (keys that lead there, value, what the message says) of damages inside a field."""
    task = next(iter(content["test"]))
    for key, value in (("accuracy", 0.123), ("accuracy", None), ("correct", 10**6),
                       ("correct", 0.5), ("total", 0), ("total", -1), ("total", "5")):  # fmt: skip
        yield ("test", task, key), value, "test"
    yield ("test", task), {}, "missing"
    seen = {"split": "val", "images": 3, "labels": False, "forward_passes": 3,
            "backward_passes": 0, "seconds": 1.0}  # fmt: skip
    for key, value in (("split", "all"), ("images", 0), ("images", "3"), ("labels", 1),
                       ("share", 1.5), ("share", "all"), ("share", -0.1)):  # fmt: skip
        yield ("seen",), seen | {key: value}, "seen"
    yield ("seen",), {"split": "val"}, "missing"
    right = {"accuracy": 1.0, "correct": 2, "total": 2}
    router = {kind: dict.fromkeys(content["test"], right) for kind in ROUTER}
    yield ("router",), {"found": {}}, "missing"
    for kind in ROUTER:
        yield ("router",), router | {kind: {task: right}}, f"router.{kind} differ"
        wrong = router[kind] | {task: right | {"correct": 3}}
        yield ("router",), router | {kind: wrong}, f"router.{kind} accuracy"
    unseen = {"tasks": {"new": "New"}, "test": {"new": right}, "absolute": 1.0, "normalized": 1.0,
              "normalizer": {"new": 1.0}, "checkpoints": {}}  # fmt: skip
    yield ("unseen",), {"tasks": {}}, "missing"
    yield ("unseen",), unseen | {"test": {}}, "unseen.test differ"
    yield ("unseen",), unseen | {"normalizer": {}}, "unseen.normalizer differ"
    yield ("unseen",), unseen | {"normalizer": {"new": 0.0}}, "normalizer of 0"
    yield ("unseen",), unseen | {"test": {"new": right | {"correct": 3}}}, "unseen accuracy"
    own = {"tasks": {task: "T"}, "test": {task: right}, "normalizer": {task: 1.0}}
    yield ("unseen",), unseen | own, "merged, and unseen as well"
    odd = {"tasks": {"../x": "T"}, "test": {"../x": right}, "normalizer": {"../x": 1.0}}
    yield ("unseen",), unseen | odd, "an unseen task is '../x'"
    fog = dict.fromkeys(content["test"], right)
    yield ("corrupted",), {"severity": 3}, "missing"
    yield ("corrupted",), {"severity": 6, "test": {"fog": fog}}, "severity 6"
    yield ("corrupted",), {"severity": 3, "test": {}}, "no corruption"
    yield ("corrupted",), {"severity": 3, "test": {"a/b": fog}}, "a corruption is 'a/b'"
    yield ("corrupted",), {"severity": 3, "test": {"fog": {task: right}}}, "corrupted fog differ"
    wrong = {"fog": fog | {task: right | {"correct": 3}}}
    yield ("corrupted",), {"severity": 3, "test": wrong}, "its fog accuracy"
    yield ("details", "deep"), nested(100), "nested"
    yield ("details", "long"), "x" * 2_000_000, "details"
    yield ("details", "a\nb"), 1, "a key of its details"
    yield ("val",), {task: {"accuracy": 1.0, "correct": 3, "total": 2}}, "val"
    yield ("test", "other"), content["test"][task], "differ, first in 'other'"
    yield ("tasks",), {}, "0 tasks"
    yield ("tasks",), {f"t{i}": "T" for i in range(1001)}, "1001 tasks"
    yield ("tasks", "../x"), "X", "the name of a task is '../x'"
    yield ("tasks", task), "\x1b[31m", "its tasks"
    yield ("tasks", "a\nb"), "X", "a key of its tasks"
    yield ("label",), "x" * 2000, "its label"
    yield ("label",), "a\nb", "its label"
    yield ("label",), "\ud800", "its label"
    yield ("alpha",), 1e300, "its alpha"
    yield ("alpha_curve",), [{"alpha": 1.0}], "alpha_curve"
    yield ("alpha_curve",), [{"alpha": 1.0, "normalized": None}], "alpha_curve"
    yield ("normalizer", task), 0.0, "its normalizer"
    yield ("normalizer", task), 1.1, "its normalizer"
    yield ("seconds", "merge"), -1.0, "its seconds"
    yield ("created",), "yesterday", "ISO 8601"
    yield ("settings", "evaluation"), [], "settings"
    yield ("settings", "evaluation"), {"precision": ["float32"]}, "precision"
    yield ("settings", "tasks"), [], "settings"
    yield ("settings", "text"), "\ud800", "surrogates"
    yield ("settings", "deep"), nested(100), "nested"
    yield ("knobs", "deep"), nested(100), "nested"
    yield ("knobs", "long"), "x" * 20_000, "knobs"
    yield ("checkpoints", task, "generation"), None, "checkpoints"


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def odd_files(path, text):
    """Make what is no Run's json beside ``path``, named by what it is; return the paths."""
    folder = path.parent
    texts = {
        "empty": b"",
        "cut": text[: len(text) // 2].encode(),
        "utf16": text.encode("utf-16"),
        "bytes": b"\xff\xfe\x00{",
        "deep": b"[" * 10**6,
        "nan": text.replace('"seed": 0', '"seed": NaN').encode(),
        "infinite": text.replace('"peak_memory": ', '"peak_memory": 1e999, "x": ').encode(),
        "digits": text.replace('"seed": 0', f'"seed": {"9" * 5000}').encode(),
        "list": b"[1, 2]",
        "foreign": b'{"loss": 0.1}',
        "new\nline\x1b[31m": b"",
    }
    for name, content in texts.items():
        (folder / f"{name}.json").write_bytes(content)
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "fifo.json")
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "nowhere.json").symlink_to("no such file")
    (folder / "endless.json").symlink_to("/dev/zero")
    sparse(folder / "gigabytes.json", 2**33)
    others = ("folder", "fifo", "loop", "nowhere", "endless", "gigabytes")
    return [folder / f"{name}.json" for name in (*texts, *others)]


def sparse(path, num_bytes):
    with path.open("wb") as file:
        file.truncate(num_bytes)


def odd_bits(correct):
    """Yield (name, arrays or bytes or a function of the path) of npz files that are not a Run's."""
    task, bits = next(iter(correct.items()))
    rest = {name: b for name, b in correct.items() if name != task}
    yield "missing", lambda path: None
    yield "empty", b""
    yield "cut zip", b"PK\x03\x04 cut"
    yield "gigabytes", lambda path: sparse(path, 2**33)
    yield "folder", lambda path: path.mkdir()
    yield "fifo", os.mkfifo
    yield "loop", lambda path: path.symlink_to(path.name)
    yield "a task less", rest
    yield "an image less", rest | {task: bits[1:]}
    yield "other images right", rest | {task: ~bits}
    yield "numbers", rest | {task: bits.astype(np.int64)}
    yield "floats", rest | {task: bits.astype(float)}
    yield "a square", rest | {task: np.stack([bits, bits])}
    yield "a scalar", rest | {task: np.array(True)}
    yield "bytes that are no bools", rest | {task: (2 * bits.astype(np.uint8)).view(bool)}
    yield "a structure", rest | {task: np.zeros(len(bits), [("a", bool)])}
    yield "bomb", rest | {task: np.zeros(2**26, bool)}
