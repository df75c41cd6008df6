"""docs/own_task.md: a folder of images becomes a task, by the commands that stand there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from made_up.image_folders import write
from stand_ins.commands import begin_from, runs, small, tsv

from tsv_bench.cli.typed.plain_path import with_folder

PAGE = (Path(__file__).parents[2] / "docs/own_task.md").read_text(encoding="utf-8")
SHOWN = PAGE.split("name=tints\n\n")[1].split("\n\n")[0]
PRINTED = "".join(f"{line[4:]}\n" for line in SHOWN.splitlines())
[MAKE] = re.findall(r"^    tsv-task (.*)$", PAGE, re.M)
[RUN] = re.findall(r"^      tsv-bench (.*)$", PAGE, re.M)


@pytest.fixture(scope="module")
def described(fine_tuned, tmp_path_factory):
    """(folder, what the page's command printed of a folder with three classes)."""
    folder = begin_from(fine_tuned, tmp_path_factory.mktemp("own"))
    write(folder / "pics", ("red", "green", "blue"), 20)
    return folder, tsv(folder, "task", *shlex.split(MAKE))


def test_the_page_shows_what_is_printed(described):
    folder, done = described
    assert done.code == 0 and done.out == PRINTED, done.err


def test_the_command_that_it_prints_works(described):
    folder, done = described
    line = shlex.split(done.out.splitlines()[-1])
    assert line == ["tsv-bench", *shlex.split(RUN)]
    short = [*small("suite.tasks", ["signs"]), "suite.tasks.tints.epochs=2", "method.alphas=[1.0]"]
    ran = tsv(folder, "bench", *line[1:], *short)
    assert ran.code == 0, ran.err
    run = runs(folder)["tsv_merge"]
    assert list(run.test) == ["tints", "signs"] and run.test["tints"].total == 12


def test_the_yaml_is_the_least_one_with_all_that_it_leaves_out(described):
    folder, _ = described
    [least] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    written = yaml.safe_load((folder / "my_conf/task/tints.yaml").read_text())["tints"]
    assert written.pop("class_names") == {"blue": "blue", "green": "green", "red": "red"}
    assert written.pop("label") == "Tints" and written.pop("epochs") == 10
    assert written.pop("templates") == ["a photo of a {}"]
    source = {"folder": str(folder / "pics")}
    assert written == yaml.safe_load(least)["tints"] | {"source": source}


def test_words_that_the_embedded_backbone_does_not_know_lead_to_clip(described):
    folder, _ = described
    write(folder / "birds", ("blue_jay", "crow", "no"), 3)
    (folder / "birds/notes.txt").touch()
    done = tsv(folder, "task", "birds", "name=birds", "config_dir=a conf")
    assert done.code == 0, done.err
    assert "blue_jay  blue jay" in done.out and "Left out: 1 file, first" in done.out
    assert "mini was never shown the word piece 'jay' of the prompt" in done.out
    lines = [shlex.split(line) for line in done.out.splitlines()[-2:]]
    assert [line[0] for line in lines] == ["tsv-fetch", "tsv-bench"]
    for line in lines:  # as far as this goes without a network
        ran = tsv(
            folder, line[0].removeprefix("tsv-"), *line[1:], *["check=true"][: "fe" in line[0]]
        )
        assert ran.code == 1 and "weights of vit_b32" in ran.err, ran.err
        assert "suite.tasks=[birds]" in line and "a conf" in line
    text = (folder / "a conf/task/birds.yaml").read_text()
    assert yaml.safe_load(text)["birds"]["class_names"]["no"] == "no"  # in quotes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pics"], "name= is missing. As in: tsv-task pics name=birds"),
        (["pics", "name=a/b"], "the name of a task"),
        (["pics", "name=tints"], "my_conf/task/tints.yaml is there already; overwrite=true"),
        (["pics/red", "name=red"], "has no folder for each class, but 20 images outside of any"),
    ],
)
def test_mistakes_are_said(described, arguments, message):
    done = tsv(described[0], "task", *arguments)
    assert done.code == 1 and message in done.err, done.err
    assert not done.out


def test_overwrite_replaces_the_yaml(described):
    folder, _ = described
    path = folder / "my_conf/task/other.yaml"
    path.write_text("mine")
    done = tsv(folder, "task", "pics", "name=other", "overwrite=true")
    assert done.code == 0 and path.read_text().startswith("# Other: 3 classes")


def test_the_folder_is_the_argument_without_a_name():
    assert with_folder(["my pics", "name=a"]) == ["folder='my pics'", "name=a"]
    given = ["--cfg", "job", "name=a", "it's", "-cd", "x", "--help"]
    assert with_folder(given) == ["--cfg", "job", "name=a", r"folder='it\'s'", "-cd", "x", "--help"]
