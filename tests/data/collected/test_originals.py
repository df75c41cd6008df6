"""Originals are in one split, drawn alike each time, and centered."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tsv_bench.data.collected.originals import FIGURE, distinct, images, mask_of

FONT = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@pytest.fixture(scope="module")
def masks():
    return {character: mask_of(FONT, character) for character in "ABCDX"}


@pytest.mark.parametrize("character", ["I", "m", "."])
def test_a_mask_is_centered_and_its_longer_side_is_the_figure(character):
    x0, y0, x1, y1 = mask_of(FONT, character).getbbox()
    assert max(x1 - x0, y1 - y0) == FIGURE
    assert abs(x0 + x1 - 64) <= 1 and abs(y0 + y1 - 64) <= 1


def test_a_character_without_ink_has_no_mask():
    assert mask_of(FONT, " ") is None


def test_what_looks_like_an_earlier_split_is_left_out(masks):
    paler = Image.fromarray(np.asarray(masks["A"]) // 2)
    splits = {
        "train": {0: {"one": [masks["A"]]}, 1: {"one": [masks["B"]]}},
        "val": {0: {"two": [masks["C"], paler]}},
        # Of another label, too: it would be one picture with two names.
        "test": {0: {"three": [masks["C"]]}, 1: {"three": [masks["D"], masks["A"]]}},
    }
    kept = distinct(splits)
    assert kept["train"] == splits["train"]
    assert kept["val"] == {0: {"two": [masks["C"]]}}
    assert kept["test"] == {1: {"three": [masks["D"]]}}


def test_one_split_may_have_a_picture_twice(masks):
    train = {0: {"one": [masks["A"]], "two": [masks["A"]]}}
    assert distinct({"train": train, "val": {}, "test": {}})["train"] == train


def draw(of, num_images=8, **settings):
    given = {"task": "icons", "split": "train", "camera": None, "seed": 0} | settings
    return list(images(of, num_images=num_images, **given))


def test_images_follow_from_task_split_seed_and_place(masks):
    of = {0: {"one": [masks["A"]]}}
    first = [image for image, _ in draw(of)]
    more = [image for image, _ in draw(of, num_images=12)]
    assert all(map(np.array_equal, first, more))
    for other in ({"seed": 1}, {"split": "val"}, {"task": "script"}, {"camera": "blurred"}):
        assert not any(map(np.array_equal, first, [image for image, _ in draw(of, **other)])), other
    assert first[0].shape == (30, 30, 3) and first[0].dtype == np.uint8


def test_a_split_without_originals_and_an_unknown_camera_are_told(masks):
    with pytest.raises(ValueError, match="icons has no train images.*Name other sets"):
        draw({})
    with pytest.raises(ValueError, match="no camera is 'foggy'; there are tilted"):
        draw({0: {"one": [masks["A"]]}}, camera="foggy")


def test_labels_are_balanced_over_those_that_a_split_has(masks):
    of = {1: {"one": [masks["A"]]}, 4: {"one": [masks["B"]]}}
    labels = [label for _, label in draw(of, num_images=10)]
    assert np.array_equal(np.bincount(labels), [0, 5, 0, 0, 5])
    assert labels != sorted(labels)


def test_makers_are_equally_likely_however_many_masks_they_have(monkeypatch, masks):
    taken = []
    monkeypatch.setattr(
        "tsv_bench.data.collected.originals.painted",
        lambda rng, mask, style: taken.append(mask) or np.zeros((30, 30, 3), np.uint8),
    )
    draw({0: {"one": [masks["A"]] * 9, "two": [masks["X"]]}}, num_images=200)
    # 200 draws at one half: a standard deviation of 7.
    assert 70 < sum(mask is masks["X"] for mask in taken) < 130
