"""The yamls of tasks: they compose with tsv-finetune, and fit the Python that they configure."""

import pytest
from omegaconf import OmegaConf
from stand_ins.configurations import composed, fits

from tsv_bench.cli.config import tasks
from tsv_bench.cli.config.search_path import options
from tsv_bench.cli.config.tasks import switched

VISION = tasks.named_tasks("vision20")  # their images lie on the hub: test_vision_tasks.py
PICTURES = set(tasks.named_tasks("mini20")) - set(tasks.named_tasks("mini14"))  # of packages
EMBEDDED = [task for task in options("task") if task not in PICTURES.union(VISION)]


def test_every_task_composes_with_its_command():
    OmegaConf.to_container(all_tasks(), resolve=True, throw_on_missing=True)
    assert list(all_tasks().task) == options("task")


def all_tasks():
    return composed("finetune", f"task=[{','.join(options('task'))}]")


def made_task(name):
    return tasks.make_tasks({name: all_tasks().task[name]})[name]


@pytest.mark.parametrize("task", options("task"))
class TestTask:
    def test_config_fits(self, task):
        node = all_tasks().task
        fits(switched(node[task]))
        fits(node[task].source, *(["train"] if task not in VISION else []))

    def test_key_file_and_name_are_one(self, task):
        assert made_task(task).name == task


@pytest.mark.parametrize("task", EMBEDDED)
def test_labels_of_the_first_images_have_class_names(task):
    made = made_task(task)
    pairs = made.source("val")
    labels = [label for _, (_, label) in zip(range(100), pairs, strict=False)]
    assert set(labels) == set(range(len(made.class_names)))


def test_pretraining_has_captions_for_every_embedded_task():
    config = composed("pretrain")
    assert set(config.tasks) == set(config.captions) == set(config.generic) == set(EMBEDDED)
    fits(config.recipe)
