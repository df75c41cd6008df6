"""docs/checkpoint_sources.md: checkpoints of one's own, by what stands there."""

import re
import shlex
import shutil
from pathlib import Path

import made_up.tasks
import yaml
from hydra.utils import instantiate
from stand_ins.commands import SMALL, begin_from, checkpoints, runs, tsv

from tsv_bench.cli.config.search_path import options
from tsv_bench.files import sha256

PAGE = (Path(__file__).parents[2] / "docs/checkpoint_sources.md").read_text(encoding="utf-8")
REPOSITORY, BY_DATE = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
[CODE] = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def test_every_source_is_named():
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.M)
    assert sorted(re.findall(r"\w+", " ".join(rows))) == sorted(options("checkpoints"))


def test_a_class_says_which_file_is_a_tasks(fine_tuned, tmp_path):
    folder = begin_from(fine_tuned, tmp_path)
    for file, text in {"by_date.py": CODE, "my_conf/checkpoints/by_date.yaml": BY_DATE}.items():
        assert f"`{file}`" in PAGE
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    for path in checkpoints(folder):
        home = folder / "mine" / "mini" / path.name.partition("-")[0]
        home.mkdir(parents=True)
        shutil.copy(path, home / "2026-11-29.safetensors")
        (home / "2026-11-28.safetensors").touch()
    [line] = re.findall(r"^    tsv-bench (.*checkpoints=by_date.*)$", PAGE, re.M)
    done = tsv(folder, "bench", *shlex.split(line), *SMALL)
    assert done.code == 0, done.err
    used = runs(folder)["individual"].checkpoints
    for task in ("signs", "shapes"):
        newest = folder / f"mine/mini/{task}/2026-11-29.safetensors"
        assert used[task] == {"sha256": sha256(newest), "generation": "other"}


def test_a_repository_of_ones_own_is_what_is_asked_for():
    assert "`my_conf/checkpoints/ours.yaml`" in PAGE
    [need] = instantiate(yaml.safe_load(REPOSITORY)).needs("vit_b32", made_up.tasks.task("cars"))
    assert need.repo == "our-group/vit-checkpoints"
    assert need.patterns == ("ViT-B-32/Cars/model.safetensors",)
