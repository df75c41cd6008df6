"""The maps name what is there: the package's docstring, conf/README.md and CONTRIBUTING.md."""

import re
from pathlib import Path

import pytest
import yaml

import tsv_bench
from tsv_bench.cli.config.search_path import groups, options

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
PATH = re.compile(r"[\w.-]+/[\w./-]*")


def quoted(text):
    """Return what stands in backticks or is linked to."""
    return set(re.findall(r"`([^`\n]+)`", text)) | set(re.findall(r"\]\(([^)]+)\)", text))


def targets(node):
    """Yield every ``_target_`` below a node of a yaml."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)


def test_the_map_names_every_package_and_points_downward():
    package = ROOT / "tsv_bench"
    lines = tsv_bench.__doc__.split("above it in this list:")[1].split("\n    ")[1:]
    named = [line.split()[0] for line in lines]
    there = {path.stem for path in package.iterdir() if path.suffix == ".py"}
    there |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert sorted(named) == sorted(there - {"__init__"})
    for index, name in enumerate(named):
        files = [package / f"{name}.py", *(package / name).rglob("*.py")]
        text = "".join(path.read_text() for path in files if path.exists())
        known = set(re.findall(r"^\s*from tsv_bench\.(\w+)", text, re.M))
        assert known <= set(named[: index + 1]), name


@pytest.mark.parametrize("file", ["conf/README.md", "CONTRIBUTING.md"])
def test_paths_in_a_guide_exist(file):
    found = {name for name in quoted((ROOT / file).read_text()) if PATH.fullmatch(name)}
    homes = (ROOT, (ROOT / file).parent, ROOT / "tsv_bench" / "methods")
    examples = {"tsv_bench/a/b.py", "tests/a/test_b.py"}
    assert found
    assert not [n for n in found - examples if not any((home / n).exists() for home in homes)]


def test_guide_to_the_configuration_names_every_group_and_target():
    text = (CONF / "README.md").read_text()
    table = text.split("|-|-|-|\n")[1].split("\n\n")[0].splitlines()
    rows = {row.split("`")[1].rstrip("/"): row for row in table}
    assert sorted(rows) == groups()
    for group, row in rows.items():
        for option in options(group):
            for target in targets(yaml.safe_load((CONF / group / f"{option}.yaml").read_text())):
                module, _, name = target.rpartition(".")
                short = module.rpartition(".")[2]
                known = [f"`{target}`", f"`{short}.{name}`", f"`{name}`", f"`{module}.<name>`"]
                assert any(form in row for form in known), target


def test_guide_to_the_configuration_sorts_the_tasks():
    text = (CONF / "README.md").read_text()
    named = text.split("need no download:")[1].split(". All others")[0]
    embedded, _, collected = named.partition(". Of pictures out of packages ")
    for listed, module in (
        (embedded, "tsv_bench.data.sources"),
        (collected.partition(":")[2], "tsv_bench.data.collected"),
    ):
        yamls = (CONF / "task" / f"{task}.yaml" for task in options("task"))
        made = [path.stem for path in yamls if module in path.read_text()]
        assert re.findall(r"\w+", listed) == made != []


@pytest.mark.parametrize(
    "example", re.findall(r"```yaml\n(.*?)```", (CONF / "README.md").read_text(), re.S)
)
def test_examples_of_the_guide_are_yaml(example):
    assert isinstance(yaml.safe_load(example), dict)
