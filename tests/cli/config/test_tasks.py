"""Switches of a task, tasks that are not merged, and what a suite is called."""

import pytest
from made_up.tasks import task
from omegaconf import OmegaConf
from stand_ins.configurations import composed

from tsv_bench.cli.config.tasks import (
    check_drawn,
    make_corruptions,
    suite_name,
    switched,
    without_unseen,
)
from tsv_bench.data.corruptions.corrupted import Corruptions
from tsv_bench.data.corruptions.definitions import CORRUPTIONS

TASK = {
    "name": "faces",
    "epochs": 3,
    "class_names": ["happy", "sad"],
    "source": {
        "repo": "somebody/faces",
        "splits": {"train": "train", "test": "test"},
        "turn": True,
    },
}
PROMPTS = {
    "correct": {},
    "paper": {"variant": "prompts of the paper", "class_names": ["sad", "happy", "angry"]},
}
TURN = {True: {}, False: {"variant": "not turned", "source": {"turn": False}}}
TEST = {
    "test": {},
    "train": {"variant": "tested on train", "source": {"splits": {"test": "train"}}},
}


def made(switches=None, **keys):
    node = OmegaConf.create({**TASK, **keys, **({"switches": switches} if switches else {})})
    before = OmegaConf.to_container(node)
    found = OmegaConf.to_container(switched(node))
    assert OmegaConf.to_container(node) == before  # a sweep uses the node again
    return found


def test_a_task_without_switches_is_as_it_was():
    assert made() == {**TASK, "variant": ""}
    assert made(variant="rotated") == {**TASK, "variant": "rotated"}


def test_default_sets_nothing_and_the_switch_is_taken_out():
    assert made({"prompts": PROMPTS}, prompts="correct") == {**TASK, "variant": ""}


def test_lists_are_replaced_and_the_variant_is_said():
    found = made({"prompts": PROMPTS}, prompts="paper")
    assert found == {
        **TASK,
        "class_names": ["sad", "happy", "angry"],
        "variant": "prompts of the paper",
    }


def test_settings_of_several_switches_are_merged_and_all_are_said():
    switches = {"prompts": PROMPTS, "turn": TURN, "test_split": TEST}
    found = made(switches, prompts="paper", turn=False, test_split="train", variant="mine")
    assert found["source"] == {
        "repo": "somebody/faces",
        "splits": {"train": "train", "test": "train"},
        "turn": False,
    }
    assert found["class_names"] == PROMPTS["paper"]["class_names"]
    assert found["variant"] == "mine, prompts of the paper, not turned, tested on train"
    assert not {"switches", *switches} & set(found)


@pytest.mark.parametrize(
    ("switches", "keys", "message"),
    [
        ({"prompts": PROMPTS}, {"prompts": "papr"}, "'faces' has prompts=papr; it takes one of: "
         "correct, paper"),
        ({"prompts": PROMPTS}, {"prompts": None}, "prompts=null; it takes one of: correct, paper"),
        ({"prompts": PROMPTS}, {"prompts": ["paper"]}, "takes one of: correct, paper"),
        ({"turn": TURN}, {"turn": 1}, "turn=1; it takes one of: true, false"),
        ({"turn": TURN}, {"turn": "true"}, "it takes one of: true, false"),
        ({"prompts": PROMPTS, "turn": TURN}, {"prompts": "paper", "turn": 0}, "turn=0; it takes"),
    ],
)  # fmt: skip
def test_other_values_are_refused_beside_those_there_are(switches, keys, message):
    with pytest.raises(ValueError, match=message):
        made(switches, **keys)


@pytest.mark.parametrize(
    "numbers, message",
    [
        ("many", "num_images=many, and takes a number of each split"),
        ({"train": "x", "val": 1}, "faces.source.num_images.train='x' is not a whole"),
        ({"train": 5, "val": None}, "num_images.val=None is not a whole number from 1 on"),
        ({"train": 0}, "num_images.train=0 is not"),
        ({"train": True}, "num_images.train=True is not"),
    ],
)
def test_wrong_numbers_of_images_are_found_before_they_are_drawn(numbers, message):
    node = {**TASK, "_target_": "tsv_bench.data.Task", "source": {"num_images": numbers}}
    with pytest.raises(ValueError) as caught:
        check_drawn("faces", node)
    assert message in str(caught.value)


def test_interpolations_are_those_of_the_task_as_it_was_chosen():
    """A switch may replace prompts; the data set's names of the classes stay."""
    node = OmegaConf.create({"task": {
        **TASK, "prompts": "paper", "switches": {"prompts": PROMPTS},
        "source": {"class_names": "${..class_names}"},
    }})  # fmt: skip
    assert switched(node.task).source.class_names == ["happy", "sad"]


ALL = {name: task(name) for name in ("cars", "dtd", "sun397")}


def test_unseen_tasks_are_taken_out_in_the_order_of_the_suite():
    merged, unseen = without_unseen(ALL, ["sun397", "cars"])
    assert (list(merged), list(unseen)) == (["dtd"], ["cars", "sun397"])
    assert without_unseen(ALL, []) == (ALL, {})


@pytest.mark.parametrize(
    "unseen, message",
    [
        (["mnist"], "unseen names 'mnist', which is no task of the suite; there are cars, dtd"),
        (list(ALL), "unseen names all tasks of the suite, cars, dtd, sun397. Merge some."),
        ("cars", r"unseen='cars' is no list of tasks, as in unseen=\[symbols,shapes\]"),
        (None, "unseen=None is no list"),
    ],
)
def test_wrong_unseen_tasks_are_refused(unseen, message):
    with pytest.raises(ValueError, match=message):
        without_unseen(ALL, unseen)


FEW = "evaluation.corruptions=[fog,contrast]"


@pytest.mark.parametrize(
    "overrides, name",
    [
        ([], "mini8"),
        (["task@suite.tasks=[digits,land]"], "digits+land"),
        (["unseen=[shapes,digits]"], "mini8-unseen-digits+shapes"),
        (["unseen=[digits,street,signs,land]"], "mini8-unseen-4-tasks-"),
        (["evaluation.severity=5"], "mini8"),
        ([FEW, "evaluation.severity=5"], "mini8-fog+contrast-5"),
        (["experiment=corrupted"], "mini8-corrupted-3"),
        (["experiment=unseen", FEW], "mini8-unseen-symbols+shapes-fog+contrast-3"),
    ],
)
def test_a_suites_name_says_what_else_is_tested(overrides, name):
    found = suite_name(composed("bench", "suite=mini8", *overrides))
    assert found.startswith(name) if name.endswith("-") else found == name


def test_corruptions_are_a_list_or_none():
    assert make_corruptions(composed("bench")) is None
    assert make_corruptions(composed("bench", FEW)) == Corruptions(["fog", "contrast"], 3)
    assert make_corruptions(composed("bench", "experiment=corrupted")).names == list(CORRUPTIONS)
    with pytest.raises(ValueError, match="evaluation.corruptions='fog' is no list"):
        make_corruptions(composed("bench", "evaluation.corruptions=fog"))
