"""What a user's yaml of a task may leave out, and what is said where it lacks more."""

import pytest
from made_up.image_folders import write
from omegaconf import OmegaConf

from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.data import Task

TASK = {"_target_": "tsv_bench.data.Task", "name": "pics"}


def made(folder, **keys):
    node = OmegaConf.create({**TASK, "source": {"folder": str(folder)}, **keys})
    return make_tasks(OmegaConf.create({"pics": node}))["pics"]


@pytest.fixture(scope="module")
def pics(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pics"), ("no", "yes"), 3)


def test_a_folder_is_all_that_a_source_needs(pics):
    task = made(pics)
    assert isinstance(task, Task) and task.class_names == ("no", "yes")
    assert task.label == "Pics" and task.prompts == [["a photo of a no"], ["a photo of a yes"]]
    named = made(pics, class_names={"yes": "it", "no": "none"}, label="P", epochs=3)
    assert (named.class_names, named.label, named.epochs) == (("none", "it"), "P", 3)


def test_the_folder_is_found_from_the_current_one(pics, monkeypatch):
    monkeypatch.chdir(pics.parent)
    assert made(pics.name).fingerprint == made(pics).fingerprint


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"name": "pics"}, "holds the task under its name, and here 'name' stands outside"),
        (
            {"pics": {"name": "pics"}},
            "'pics' does not say what it is: it needs the line _targ",
        ),
        ({"pics": TASK | {"source": {}}}, "source has nothing. It needs folder: PATH, or a _targ"),
        ({"pics": TASK | {"source": {"repo": "x"}}}, "source has repo. It needs folder"),
        ({"pics": TASK | {"source": {"folder": 3}}}, "has folder=3, no path"),
        (
            {"pics": TASK | {"source": {"folder": "x", "class_name": 1}}},
            "unknown key 'class_name' in the source of task 'pics'; did you mean 'class_names'",
        ),
    ],
)
def test_what_a_yaml_lacks_is_said(nodes, message):
    with pytest.raises(ValueError, match=message):
        make_tasks(OmegaConf.create(nodes))


def test_a_task_needs_names_of_classes_from_somewhere():
    with pytest.raises(ValueError, match="'a' has no class_names, nor has its source"):
        Task(name="a", source=lambda split: iter(()))
