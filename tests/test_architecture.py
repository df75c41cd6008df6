"""The rooms of the package and who may know whom, read from the source without running it."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tsv_bench"
SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Rooms that see tensors only, and what of the package each may import.
TENSOR_ROOMS = {
    "lapack": set(),
    "inverse_roots": {"lapack"},
    "linalg": {"lapack"},
    "row_spaces": {"inverse_roots", "lapack", "linalg"},
    "matrices": set(),
    "ranks": set(),
    "streaming": {"lapack"},
    "task_vectors": {"linalg", "matrices", "streaming"},
    "methods": {
        "linalg",
        "matrices",
        "ranks",
        "row_spaces",
        "streaming",
        "task_vectors",
        "methods",
    },
    "interference": {"linalg", "matrices", "ranks", "streaming", "task_vectors", "methods"},
}
# What one of them is there to know.
LIBRARIES = {"lapack": {"scipy", "threadpoolctl"}, "inverse_roots": {"scipy"}}
# Files, data sets and networks know nothing of experiments.
FILE_ROOMS = {"checkpoints", "data", "models"}
EXPERIMENT_ROOMS = {"cli", "report", "page", "plots", "tracking", "runs"}
ONLY_IN = {
    "hydra": {"cli"},
    "omegaconf": {"cli"},
    "wandb": {"tracking"},
    # The embedded suite is drawn with the fonts and photographs that matplotlib ships.
    "matplotlib": {"plots", "data"},
}
VAGUE_NAMES = {"utils", "common", "helpers", "base", "core", "manager"}
MAX_LINES = 300
TABLES = {"classnames.py", "templates.py"}  # long because the data sets are


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree, module, is_package=False):
    """Full names of all that is imported, relative imports and those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            # `from tsv_bench import x` may name the module tsv_bench.x: the longer name says both.
            yield from (f"{source}.{alias.name}" for alias in node.names)


def room_of(name):
    """The first name below the package; None outside of it."""
    parts = name.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def parsed(path):
    tree, module = ast.parse(path.read_text()), module_of(path)
    return tree, room_of(module), set(imports(tree, module, path.name == "__init__.py"))


def violations(tree, room, imported):
    """What one module does that its room may not."""
    outside = {name.split(".")[0] for name in imported}
    rooms = {room_of(name) for name in imported} - {None, room}
    if room is None and imported:
        yield f"the package itself imports {min(imported)}"
    if room in TENSOR_ROOMS:
        known = {"torch", "jaxtyping", PACKAGE, *LIBRARIES.get(room, ())}
        for name in outside - set(sys.stdlib_module_names) - known:
            yield f"{room} sees tensors only, yet imports {name}"
        for name in rooms - TENSOR_ROOMS[room]:
            yield f"{room} imports {name}"
    if room in FILE_ROOMS:
        for name in rooms & EXPERIMENT_ROOMS:
            yield f"{room} knows no experiment, yet imports {name}"
    if "cli" in rooms:
        yield f"{room} imports cli"
    for name, allowed in ONLY_IN.items():
        if name in outside and room not in allowed:
            yield f"{room} imports {name}, which only {sorted(allowed)} may"
    if room != "cli":
        yield from calls_and_parameters(tree)


def calls_and_parameters(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print":
            yield f"line {node.lineno} prints; log instead"
        elif isinstance(node, ast.arg) and node.arg in ("config", "cfg"):
            yield f"line {node.lineno} takes a {node.arg}; take what it needs of it"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_module_keeps_to_its_room(path):
    assert not list(violations(*parsed(path)))


def test_rooms_do_not_import_each_other_in_circles():
    graph = {}
    for path in SOURCES:
        _, room, imported = parsed(path)
        graph.setdefault(room, set()).update({room_of(name) for name in imported} - {None, room})
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize(
    ("room", "code", "message"),
    [
        ("linalg", "import numpy", "tensors only, yet imports numpy"),
        ("linalg", "from . import methods", "linalg imports methods"),
        ("task_vectors", "from tsv_bench.methods import ties", "imports methods"),
        ("methods", "from safetensors import safe_open", "tensors only"),
        ("data", "def load():\n    from tsv_bench import plots", "knows no experiment"),
        ("report", "from tsv_bench.cli.bench import main", "imports cli"),
        ("report", "import omegaconf", "which only ['cli'] may"),
        ("evaluation", "from wandb import init", "which only ['tracking'] may"),
        ("evaluation", "def accuracy(model, *, cfg): ...", "takes a cfg"),
        ("evaluation", "print(1)", "line 1 prints"),
        (None, "import torch", "the package itself imports torch"),
    ],
)
def test_a_module_in_the_wrong_room_is_found(room, code, message):
    tree = ast.parse(code)
    found = list(violations(tree, room, set(imports(tree, f"{PACKAGE}.{room}"))))
    assert any(message in violation for violation in found), found


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_module_name_says_what_it_is_for(path):
    assert not VAGUE_NAMES.intersection(module_of(path).split("."))


def test_no_file_is_long():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in [*SOURCES, *TESTS, *(ROOT / ".ci").glob("*.py")]
        if (lines := len(path.read_text().splitlines())) > MAX_LINES and path.name not in TABLES
    }
    assert not long, f"more than {MAX_LINES} lines; does each have one job?"


def test_no_file_names_a_place_of_one_machine():
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    place = re.compile(r"(^|[\"' =(:])/(home|root|mnt|opt|tmp|work|srv|Users)/")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        # Listed yet gone, or the dangling end of a link.
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" in content:  # not text
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
            if place.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not found
