"""What a method needs of images: read from its yaml, checked, part of its settings."""

import pytest

from tsv_bench.methods.needs import Needs, needs_of, takes_pretrained


def test_a_yaml_without_needs_has_none():
    assert needs_of({"name": "ties", "density": 0.2}) is None


def test_a_yaml_says_what_is_seen():
    needs = needs_of({"name": "m", "needs": ["inputs", "bench"], "images": 32, "labels": True})
    assert needs == Needs(arguments=("inputs", "bench"), images=32, labels=True)
    assert needs.statistics == ("inputs",) and needs.learns
    assert needs.nothing == {"inputs": {}, "bench": None}
    assert needs.settings["split"] == "val" and needs.settings["images"] == 32


def test_pretrained_weights_are_no_data():
    alone = {"name": "m", "needs": ["pretrained"]}
    assert needs_of(alone) is None and takes_pretrained(alone)
    beside = {"name": "m", "needs": ["inputs", "pretrained"], "images": 3}
    assert needs_of(beside) == Needs(arguments=("inputs",), images=3) and takes_pretrained(beside)
    assert not takes_pretrained({"name": "m", "needs": ["inputs"], "images": 3})


def test_all_of_a_split_or_a_share_can_be_seen():
    counts = {None: (1.0, 41), 0.5: (0.5, 20), 0.001: (0.001, 1), 7: (None, 7)}
    for images, (share, count) in counts.items():
        needs = needs_of({"name": "m", "needs": ["inputs"], "images": images})
        assert (needs.share, needs.count(41)) == (share, count)


def test_only_what_fine_tunes_says_so_in_its_settings():
    yaml = {"name": "m", "needs": ["bench"], "images": None, "labels": True}
    assert "fine_tunes" not in needs_of(yaml).settings
    assert needs_of(yaml | {"fine_tunes": True}).settings["fine_tunes"] is True


def test_a_knob_may_make_it_need_nothing():
    yaml = {"name": "m", "needs": ["inputs"], "images": 3, "unless": "data_free"}
    assert needs_of(yaml | {"data_free": True}) is None
    assert needs_of(yaml | {"data_free": False}) == Needs(arguments=("inputs",), images=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": 3}, "has images, and needs is None: it lists what the method receives"),
        ({"needs": "inputs", "images": 3}, "needs is 'inputs'"),
        ({"needs": [], "images": 3}, "needs is empty: name one at least of inputs, means, fisher"),
        ({"needs": ["gram"], "images": 3}, "needs='gram' is not what a method can receive"),
        ({"needs": ["pretrained"], "images": 3}, "has images, which has no effect"),
        ({"needs": ["inputs"]}, "needs but no images: how many a task"),
        ({"needs": ["inputs"], "images": 0}, "images=0 is not a whole number from 1 on"),
        ({"needs": ["inputs"], "images": 1.0}, "images=1.0 is no share between 0 and 1: a method"),
        ({"needs": ["inputs"], "images": "all"}, "images='all' is not a whole number from 1 on"),
        ({"needs": ["inputs"], "images": True}, "images=True is not a whole number from 1 on"),
        ({"needs": ["bench"], "images": 3, "fine_tunes": True}, "It goes with needs: [bench] and"),
        ({"needs": ["bench"], "images": 3, "fine_tunes": 1}, "fine_tunes=1 is neither true nor"),
        ({"needs": ["inputs"], "images": 3, "split": "all"}, "split='all' is not a split"),
        ({"needs": ["inputs"], "images": 3, "labels": 1}, "labels=1 is neither true nor false"),
        ({"needs": ["inputs"], "images": 3, "split": "test"}, "is transductive, which every table"),
        ({"needs": ["inputs"], "images": 3, "transductive": True}, "split=val with transductive"),
        ({"needs": ["fisher"], "images": 3}, "classes=None is not a way to take the classes"),
        ({"needs": ["inputs"], "images": 3, "classes": "exact"}, "classes='exact' has no effect"),
    ],
)
def test_what_is_malformed_is_said(settings, message):
    with pytest.raises(ValueError) as error:
        needs_of({"name": "m"} | settings)
    assert message in str(error.value)


def test_looking_at_test_images_is_said():
    needs = Needs(arguments=("bench",), images=16, split="test", transductive=True)
    assert needs.settings["split"] == "test"
