"""pyproject.toml declares every package that is imported directly, and the version stands once."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import yaml

import tsv_bench
from tsv_bench.process import extras

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OF_USERS = PROJECT["dependencies"] + EXTRAS["bench"] + EXTRAS["wandb"]

distributions = cache(packages_distributions)  # by module; it reads what all of them hold


def canonical(requirement):
    """Return the name of a requirement as the registry writes it."""
    name = re.match(r"[\w.-]+", requirement).group()
    return re.sub(r"[-_.]+", "-", name).lower()


# What the tests are run with.
TOOLS = {"build", "hatchling", "pip", "pytest-benchmark", "pytest-xdist", "pymoo", "ruff"}
TOOLS |= {"ipykernel", "nbclient"}  # and make docs
PLUGINS = {"joblib", "optuna", "ray", "slurm"}  # extras with plugins of Hydra, which finds them
TOOLS |= {canonical(each) for extra in PLUGINS for each in EXTRAS[extra]}


def imported(*folders):
    """Return the distributions that modules of these folders import, at the top or within."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    trees = [ast.parse(path.read_text()) for path in files]
    names = {"tsv_bench", "shapes"}  # the latter is written by test_conftest
    names.add("reference_pages")  # in docs/
    ours = names | {path.stem for path in files} | {path.parent.name for path in files}
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    of_module = distributions()
    third_party = {name for name in found - set(sys.stdlib_module_names) if name in of_module}
    assert found - set(sys.stdlib_module_names) - third_party <= ours
    return {canonical(of_module[name][0]) for name in third_party - {"tsv_bench"}}


def test_dependencies_are_what_the_package_imports():
    # mergekit is run by benchmarks and docs by make, in environments of their own, lm-eval by
    # users' own code; all and dev are of other extras.
    others = ("all", "dev", "docs", "lm", "mergekit", "pictures", *PLUGINS)
    optional = [name for extra in EXTRAS if extra not in others for name in EXTRAS[extra]]
    assert set(map(canonical, PROJECT["dependencies"] + optional)) == imported("tsv_bench")
    assert EXTRAS["all"] == ["tsv_bench[bench,evolve,language,pictures,wandb]"]
    # These two are imported by one module, which says what to install.
    only_in = {"transformers": "language.py", "pymoo": "search.py"}
    assert set(only_in) == {canonical(EXTRAS[extra][0]) for extra in ("language", "evolve")}
    for path in (ROOT / "tsv_bench").rglob("*.py"):
        text = path.read_text()
        for name, module in only_in.items():
            named = f"import {name}" in text or f"from {name}" in text
            assert named == (path.name == module), path


def test_the_modules_that_are_looked_for_are_those_of_the_extras():
    for extra, modules in extras.EXTRAS.items():
        found = {canonical(distributions()[module][0]) for module in modules}
        assert found == set(map(canonical, EXTRAS[extra])), extra


def test_dev_is_what_only_the_tests_import_and_run_with():
    dev, of_users = set(map(canonical, EXTRAS["dev"])), set(map(canonical, OF_USERS))
    assert dev - TOOLS == imported("tests", "benchmarks") - of_users
    assert TOOLS <= dev


def test_every_direct_dependency_has_its_version_in_constraints():
    pinned = [
        canonical(line)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert len(pinned) == len(set(pinned))
    assert set(map(canonical, OF_USERS + EXTRAS["dev"] + EXTRAS["docs"])) <= set(pinned)


def test_there_is_one_version_number():
    # Runs name it in their settings: another number is another Run.
    assert tsv_bench.__version__ == "0.1.0" == version("tsv_bench")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == tsv_bench.__version__
    assert citation["license"] == PROJECT["license"]
