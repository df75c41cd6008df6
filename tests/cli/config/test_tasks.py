"""Switches of a task: what a value sets, how tables call it, and wrong values."""

import pytest
from omegaconf import OmegaConf

from tsv_bench.cli.config.tasks import switched

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


def test_interpolations_are_those_of_the_task_as_it_was_chosen():
    """A switch may replace prompts; the data set's names of the classes stay."""
    node = OmegaConf.create({"task": {
        **TASK, "prompts": "paper", "switches": {"prompts": PROMPTS},
        "source": {"class_names": "${..class_names}"},
    }})  # fmt: skip
    assert switched(node.task).source.class_names == ["happy", "sad"]
