"""The rooms of the package and who may know whom, read from the source without running it."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "tsv_bench"
SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# What of the package each room may import; no arrow points upward in this list. A room that is
# named with its parent has a row of its own, the parent's is for the rest.
ALLOWED = {
    "process": "",
    "wording": "",
    "files": "process",
    "provenance": "",
    "scores": "",
    "faces": "",
    "bars": "",
    "linalg": "",
    "task_vectors": "faces linalg",
    "methods": "linalg task_vectors",
    "hub": "files bars wording",
    "state_dicts": "files wording linalg task_vectors",
    "data": "process files wording faces bars hub",
    "models": "files scores wording bars hub state_dicts data",
    "checkpoints": "files scores wording hub state_dicts task_vectors data models",
    "observation.statistics_file": "task_vectors state_dicts",
    "observation": "files linalg task_vectors state_dicts data models checkpoints "
    "observation.statistics_file",
    "merging": "files provenance wording faces bars linalg task_vectors methods state_dicts "
    "observation.statistics_file",
    "benchmark": "files provenance scores wording faces bars task_vectors methods state_dicts "
    "data models checkpoints observation observation.statistics_file",
    "report.tables": "files scores wording benchmark",
    "report.plots": "files scores wording benchmark report.tables",
    "report.text": "files scores wording benchmark report.tables",
    "report": "files scores wording process benchmark report.tables report.plots report.text",
    "analysis.measures": "linalg task_vectors methods",
    "analysis": "files provenance wording bars linalg task_vectors methods state_dicts "
    "report.plots analysis.measures",
    "cli": "*",
}
# Rooms that see tensors only: torch, jaxtyping's annotations, and what one file is there to know.
TENSOR_ROOMS = {"linalg", "task_vectors", "methods", "analysis.measures"}
LIBRARIES = {"linalg.lapack": {"scipy", "threadpoolctl"}, "linalg.tridiagonal_roots": {"scipy"}}
LIBRARIES |= {"linalg.selection": {"numpy"}}
LIBRARIES |= {"linalg.quasi_newton": {"scipy"}, "methods.evolved.search": {"pymoo"}}
ONLY_IN = {
    "hydra": {"cli"},
    "omegaconf": {"cli"},
    "wandb": {"report.tracking"},
    "tqdm": {"bars", "cli.launch"},
    # The embedded suite is drawn with the fonts and photographs that matplotlib ships.
    "matplotlib": {"report.plots", "analysis", "data"},
}
VAGUE_NAMES = {"utils", "common", "helpers", "base", "core", "manager"}
MAX_LINES = 300
MAX_FILES = 12  # in a folder, beside its __init__.py
TABLES = {"classnames.py", "templates.py"}  # long because the data sets are


def module_of(path):
    """The name below the package, "" for the package itself."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in SOURCES}


def within(module, name):
    return module == name or module.startswith(f"{name}.")


def room_of(module):
    """The most particular room of the table that a module is in; None for the package itself."""
    rooms = [room for room in ALLOWED if within(module, room)]
    return max(rooms, key=len, default=None)


def imports(tree, module, is_package=False):
    """Full names of all that is imported, relative imports and those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = f"{PACKAGE}.{module}".strip(".").split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            # `from tsv_bench import x` may name the module tsv_bench.x: the longer name says both.
            yield from (f"{source}.{alias.name}" for alias in node.names)


def own(imported):
    """The modules of the package among imported names."""
    for name in imported:
        if name.startswith(f"{PACKAGE}."):
            module = name.removeprefix(f"{PACKAGE}.")
            yield module if module in MODULES or "." not in module else module.rpartition(".")[0]


@functools.cache
def parsed(path):
    tree, module = ast.parse(path.read_text()), module_of(path)
    return tree, module, set(imports(tree, module, path.name == "__init__.py"))


def violations(tree, module, imported):
    """What one module does that its room may not."""
    room = room_of(module)
    if room is None:
        # What it offers is imported when it is wanted.
        of_memory = ("tsv_bench.cli.work.evaluate", "tsv_bench.cli.work.in_memory")
        late = ("tsv_bench.faces", *of_memory, "typing")
        if odd := [name for name in imported if not name.startswith(late)]:
            yield f"the package itself imports {min(odd)}"
        return
    outside = {name.split(".")[0] for name in imported}
    rooms = {room_of(name) for name in own(imported)} - {None, room}
    allowed = ALLOWED[room].split()
    for name in sorted(rooms.difference(allowed)) if allowed != ["*"] else ():
        yield f"{module} imports {name}, which {room} may not: it knows {', '.join(allowed)}"
    if room in TENSOR_ROOMS:
        known = {"torch", "jaxtyping", PACKAGE, *LIBRARIES.get(module, ())}
        for name in outside - set(sys.stdlib_module_names) - known:
            yield f"{module} sees tensors only, yet imports {name}"
    for name, places in ONLY_IN.items():
        if name in outside and not any(within(module, place) for place in places):
            yield f"{module} imports {name}, which only {sorted(places)} may"
    if room != "cli":
        yield from calls_and_parameters(tree)


def calls_and_parameters(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print":
            yield f"line {node.lineno} prints; log instead"
        elif isinstance(node, ast.arg) and node.arg in ("config", "cfg"):
            yield f"line {node.lineno} takes a {node.arg}; take what it needs of it"


def test_every_module_keeps_to_its_room():
    found = {module_of(path): list(violations(*parsed(path))) for path in SOURCES}
    assert not {module: said for module, said in found.items() if said}


def test_every_room_has_its_row():
    assert {module.split(".")[0] for module in MODULES} - {""} == {
        room.split(".")[0] for room in ALLOWED
    }


def test_the_table_itself_points_downward():
    above = set()
    for room, allowed in ALLOWED.items():
        assert above.issuperset(allowed.split()) or allowed == "*", room
        above.add(room)


def test_modules_do_not_import_each_other_in_circles():
    graph = {}
    for path in SOURCES:
        _, module, imported = parsed(path)
        # A face imports its own modules, which are read with it.
        graph[module] = {name for name in own(imported) if name in MODULES} - {module}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize(
    ("module", "code", "message"),
    [
        ("linalg.svd", "import numpy", "tensors only, yet imports numpy"),
        ("linalg.svd", "from tsv_bench import methods", "imports methods"),
        ("task_vectors.lazy", "from tsv_bench.methods import ties", "imports methods"),
        ("methods.entrywise.ties", "from safetensors import safe_open", "tensors only"),
        ("methods.entrywise.ties", "import scipy", "tensors only"),
        ("data.task", "def load():\n    from tsv_bench.report import plots", "imports report"),
        ("report.tables.row", "from tsv_bench.report.plots import style", "imports report.plots"),
        ("report.tracking", "from tsv_bench.cli.bench import main", "imports cli"),
        ("report.tracking", "import omegaconf", "which only ['cli'] may"),
        ("report.text.runs", "from wandb import init", "which only ['report.tracking'] may"),
        ("benchmark.evaluate", "import matplotlib.pyplot", "imports matplotlib"),
        ("models.accuracy", "def accuracy(model, *, cfg): ...", "takes a cfg"),
        ("models.accuracy", "print(1)", "line 1 prints"),
        ("hub.needs", "from ..cli import launch", "imports cli"),
        ("", "import torch", "the package itself imports torch"),
    ],
)
def test_a_module_in_the_wrong_room_is_found(module, code, message):
    tree = ast.parse(code)
    found = list(violations(tree, module, set(imports(tree, module))))
    assert any(message in violation for violation in found), found


def test_module_names_say_what_they_are_for():
    assert not [module for module in MODULES if VAGUE_NAMES.intersection(module.split("."))]


def test_no_file_is_long():
    benchmarks = (ROOT / "benchmarks").glob("*.py")
    long = {
        str(path.relative_to(ROOT)): lines
        for path in [*SOURCES, *TESTS, *benchmarks, *(ROOT / ".ci").glob("*.py")]
        if (lines := len(path.read_text().splitlines())) > MAX_LINES and path.name not in TABLES
    }
    assert not long, f"more than {MAX_LINES} lines; does each have one job?"


def test_no_folder_is_full():
    files = {}
    for path in SOURCES:
        if path.name != "__init__.py":
            files.setdefault(str(path.parent.relative_to(ROOT)), []).append(path.name)
    full = {folder: len(names) for folder, names in files.items() if len(names) > MAX_FILES}
    assert not full, f"more than {MAX_FILES} files; is it two rooms?"


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
