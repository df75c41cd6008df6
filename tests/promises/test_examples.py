"""The folders of examples/ hold what their pages explain and test, and their tasks are read."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import stand_ins.own_methods
import yaml
from stand_ins.commands import tsv

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
TEXT = (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def example(request, tmp_path):
    """A copy of an example's folder, and the arguments of its tsv-bench."""
    name = request.param
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    said = TEXT.split(f"## {name}\n")[1].split("\n## ")[0]
    [line] = re.findall(r"^    tsv-bench (.*)$", said, re.M)
    return tmp_path / name, shlex.split(line)


def test_methods_are_those_of_their_page(tmp_path):
    """tests/commands/test_own_method.py runs the page's."""
    stand_ins.own_methods.write(tmp_path)
    stand_ins.own_methods.write_one_that_sees(tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4
    for file in files:
        assert (EXAMPLES / "own_method" / file).read_bytes() == (tmp_path / file).read_bytes()


def test_backbone_is_that_of_its_page():
    """tests/commands/test_own_backbone.py runs the page's."""
    page = (ROOT / "docs" / "own_backbone.md").read_text(encoding="utf-8")
    file = EXAMPLES / "own_backbone" / "my_conf" / "backbone" / "siglip.yaml"
    assert f"```yaml\n{file.read_text(encoding='utf-8')}```" in page


@pytest.mark.parametrize("example", ["own_task"], indirect=True)
def test_task_is_what_the_command_writes_and_is_taken(example):
    folder, line = example
    assert tsv(folder, "task", "pics", "name=tints", "config_dir=made").code == 0
    made, shipped = (
        yaml.safe_load((folder / name / "task" / "tints.yaml").read_text())["tints"]
        for name in ("made", "my_conf")
    )
    assert made.pop("source") == {"folder": str(folder / "pics")}
    assert shipped.pop("source") == {"folder": "pics"} and shipped == made
    done = tsv(folder, "bench", *line, "--cfg", "job")
    assert done.code == 0 and list(yaml.safe_load(done.out)["suite"]["tasks"]) == ["tints", "signs"]
