"""A package imports a name when it is wanted, and has every name that it promises."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tsv_bench
from tsv_bench.faces import late

ROOT = Path(tsv_bench.__file__).parent
FACES = [
    ".".join(["tsv_bench", *path.parent.relative_to(ROOT).parts])
    for path in sorted(ROOT.rglob("__init__.py"))
    if "= late(" in path.read_text()
]
LIGHT = """
import sys
import tsv_bench.data.task, tsv_bench.merging.arguments, tsv_bench.methods.needs
import tsv_bench.methods.ranks, tsv_bench.task_vectors.kinds
assert not {"torch", "numpy"} & set(sys.modules)
from tsv_bench.data import Task
assert not {"torch", "numpy"} & set(sys.modules)
"""


@pytest.mark.parametrize("package", FACES)
def test_a_face_has_the_names_that_type_checkers_see(package):
    """Each from the file that the import under TYPE_CHECKING says."""
    face = import_module(package)
    named = {
        alias.name: node.module.removeprefix(f"{package}.")
        for node in ast.walk(ast.parse(Path(face.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module not in ("typing", "tsv_bench.faces")
        for alias in node.names
    }
    assert set(named) == set(face.__all__) and len(named) == len(face.__all__)
    for name, file in named.items():
        assert getattr(face, name) is getattr(import_module(f"{package}.{file}"), name)


def test_a_part_without_tensors_is_imported_without_torch():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'tsv_bench.data' has no attribute 'Tusk'"):
        late("tsv_bench.data", "task")("Tusk")
    with pytest.raises(ImportError, match="cannot import name 'Tusk'"):
        from tsv_bench.data import Tusk  # noqa: F401
