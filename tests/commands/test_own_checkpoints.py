"""docs/checkpoint_sources.md: checkpoints of one's own, by what stands there."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from stand_ins.commands import SMALL, begin_from, checkpoints, runs, tsv

from tsv_bench.cli.config.search_path import options
from tsv_bench.files import sha256

PAGE = (Path(__file__).parents[2] / "docs/checkpoint_sources.md").read_text(encoding="utf-8")
REPOSITORY, BY_DATE = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
[CODE] = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def command(name, source):
    """The arguments of the page's first line for a command with this source."""
    found = re.findall(rf"^    {name} (.*checkpoints={source}\b.*)$", PAGE, re.M)
    return shlex.split(found[0])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_conf/checkpoints").mkdir(parents=True)
    for name, text in {"ours": REPOSITORY, "by_date": BY_DATE}.items():
        file = f"my_conf/checkpoints/{name}.yaml"
        assert f"`{file}`" in PAGE
        (tmp_path / file).write_text(text)
    (tmp_path / "by_date.py").write_text(CODE)
    return tmp_path


def test_every_source_is_named():
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.M)
    assert sorted(re.findall(r"\w+", " ".join(rows))) == sorted(options("checkpoints"))


def test_a_class_says_which_file_is_a_tasks(fine_tuned, folder):
    begin_from(fine_tuned, folder)
    for path in checkpoints(folder):
        home = folder / "mine" / "mini" / path.name.partition("-")[0]
        home.mkdir(parents=True)
        shutil.copy(path, home / "2026-11-29.safetensors")
        (home / "2026-11-28.safetensors").touch()
    done = tsv(folder, "bench", *command("tsv-bench", "by_date"), *SMALL)
    assert done.code == 0, done.err
    used = runs(folder)["individual"].checkpoints
    for task in ("signs", "shapes"):
        newest = folder / f"mine/mini/{task}/2026-11-29.safetensors"
        assert used[task] == {"sha256": sha256(newest), "generation": "other"}


def test_a_repository_of_ones_own_is_asked_for(folder):
    done = tsv(folder, "fetch", *command("tsv-fetch", "ours"), "check=true")
    assert done.code == 1
    assert re.search(r"checkpoint of cars +our-group/vit-checkpoints", done.out)
