"""Caches of data: whole, or built again with a warning, and never built twice."""

import logging
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from made_up.tasks import NUM_IMAGES, SIZE, SOURCE, build, task, tints, to_pixels
from PIL import Image
from stand_ins.disk import read_only
from stand_ins.processes import Started

from tsv_bench.data import cache, load_split
from tsv_bench.data.task import SPLITS


def load(folder, task, split="train", to_pixels=to_pixels):
    """Load a split as a new process does, which has opened nothing yet."""
    cache._opened.clear()
    return load_split(task, split, folder=folder, image_size=SIZE, to_pixels=to_pixels)


@pytest.fixture(autouse=True)
def forgotten():
    cache._opened.clear()
    yield
    cache._opened.clear()


def is_what_was_drawn(data, split):
    images, labels = zip(*tints(split, num_images=NUM_IMAGES, seed=0), strict=True)
    assert data.images.dtype == torch.uint8 and len(data) == len(labels)
    assert np.array_equal(data.images.permute(0, 2, 3, 1).numpy(), np.stack(images))
    assert data.labels.tolist() == list(labels)


@pytest.mark.parametrize("split", SPLITS)
def test_reads_back_exactly_what_was_drawn(tmp_path, split):
    is_what_was_drawn(load(tmp_path / "not" / "there", task(), split), split)


def test_pil_images_are_kept_exactly_too(tmp_path):
    def pil(split):
        for image, label in tints(split, num_images=NUM_IMAGES, seed=0):
            yield Image.fromarray(image), label

    is_what_was_drawn(load(tmp_path, task(source=pil)), "train")


def test_nothing_is_drawn_decoded_or_opened_twice(tmp_path):
    drawn, decoded = [], []

    def source(split):
        drawn.append(split)
        yield from tints(split, num_images=NUM_IMAGES, seed=0)

    def counted(image):
        decoded.append(image)
        return to_pixels(image)

    made = task(source=source)
    first = load(tmp_path, made, to_pixels=counted)
    assert drawn == list(SPLITS) and len(decoded) == NUM_IMAGES["train"]
    again = load_split(made, "train", folder=tmp_path, image_size=SIZE, to_pixels=counted)
    assert again is first
    is_what_was_drawn(load(tmp_path, made, to_pixels=counted), "train")  # by another process
    assert drawn == list(SPLITS) and len(decoded) == NUM_IMAGES["train"]


def test_writing_to_a_split_does_not_change_the_cache(tmp_path):
    load(tmp_path, task()).images.zero_()
    is_what_was_drawn(load(tmp_path, task()), "train")


def test_another_image_size_is_decoded_from_the_same_data_set(tmp_path):
    made = task()
    load(tmp_path, made)
    half = partial(load_split, made, "train", folder=tmp_path, image_size=SIZE // 2)
    small = half(to_pixels=lambda image: to_pixels(image)[:, ::2, ::2])
    assert small.images.shape[2:] == (3, 3)
    assert len(list(tmp_path.glob("tints-*"))) == 1


def only(folder, pattern):
    (path,) = folder.rglob(pattern)
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    """Change a file whose size and time stay, as when a disk or a copy damages it."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("damage", [cut, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", ["train.npy", "train.npz"])
def test_damaged_pixels_are_decoded_again_aloud(tmp_path, caplog, name, damage):
    load(tmp_path, task())
    damage(only(tmp_path, name))
    is_what_was_drawn(load(tmp_path, task()), "train")
    # Pixels without their .npz were never finished, which is no damage.
    if (name, damage) != ("train.npz", Path.unlink):
        assert "decoded images of tints" in caplog.text and "decoding them again" in caplog.text
    caplog.clear()
    is_what_was_drawn(load(tmp_path, task()), "train")
    assert not caplog.text


@pytest.mark.parametrize("damage", [cut, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", ["train/*.arrow", "manifest.json", "test/state.json"])
def test_damaged_data_set_is_built_again_aloud(tmp_path, caplog, name, damage):
    load(tmp_path, task())
    damage(only(tmp_path, name))
    is_what_was_drawn(load(tmp_path, task(), "test"), "test")
    assert "the data cache of tints" in caplog.text and "rebuilding" in caplog.text
    caplog.clear()
    is_what_was_drawn(load(tmp_path, task(), "val"), "val")
    assert not caplog.text


def test_what_a_killed_build_left_is_cleared_aloud(tmp_path, caplog):
    home = tmp_path / f"tints-{task().fingerprint}"
    left = home.with_name(f".{home.name}.0123abcd.tmp")
    (left / "train").mkdir(parents=True)
    (left / "train" / "data-00000-of-00001.arrow").write_bytes(b"half")
    is_what_was_drawn(load(tmp_path, task()), "train")
    assert "left it half written" in caplog.text and "tints" in caplog.text
    assert not left.exists()


def test_build_that_fails_leaves_nothing(tmp_path):
    def torn(split):
        yield from tints(split, num_images=NUM_IMAGES, seed=0)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        load(tmp_path, task(source=torn))
    assert not [path for path in tmp_path.iterdir() if ".lease-" not in path.name]


@pytest.mark.slow
def test_two_processes_build_the_same_data(tmp_path):
    """The other one starts first, and is slow; we come while it is at work."""

    def never(split):
        pytest.fail("drawn, though the other process was at it")

    never.__module__, never.__qualname__ = SOURCE.__module__, SOURCE.__qualname__
    with Started(tmp_path, build, tmp_path / "data") as other:
        other.wait_until(lambda: "Tints: train images" in other.err)
        is_what_was_drawn(load(tmp_path / "data", task(source=never)), "train")
        assert other.wait() == 0


def test_source_that_yields_nothing_is_named(tmp_path):
    def without_val(split):
        if split != "val":
            yield from tints(split, num_images=NUM_IMAGES, seed=0)

    with pytest.raises(ValueError, match="the source of tints yields no val images"):
        load(tmp_path, task(source=without_val))


def test_label_without_a_class_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 .*num_classes 2"):
        load(tmp_path, task(class_names=["red", "green"]))


def settled(**changes):
    settings = {"num_images": NUM_IMAGES, "seed": 0}
    return task(source=partial(tints, **{**settings, **changes}))


def test_fingerprint_changes_with_what_decides_the_images():
    same = {name: NUM_IMAGES[name] for name in reversed(NUM_IMAGES)}
    assert settled(num_images=same).fingerprint == settled().fingerprint
    renamed = task(source=settled().source, class_names=["one", "two", "three"])
    others = [settled(seed=1), settled(num_images={**NUM_IMAGES, "val": 21}), renamed, task()]
    assert len({made.fingerprint for made in [settled(), *others]}) == 5
    # What heads are made of determines no image.
    reworded = task(source=settled().source, templates=["the {}"], epochs=9)
    assert reworded.fingerprint == settled().fingerprint


def test_fingerprint_changes_with_the_version_of_the_generators(monkeypatch):
    before = settled().fingerprint
    monkeypatch.setattr(tints, "version", 2, raising=False)
    assert settled().fingerprint != before


def test_other_settings_have_a_cache_of_their_own(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    a, b = (load(tmp_path, settled(seed=seed)).images for seed in (0, 1))
    assert not torch.equal(a, b)
    assert caplog.text.count("building the data of tints") == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_names": ["red", "green", "red"]}, "has the class 'red' twice"),
        ({"class_names": yaml.safe_load("[yes, no, other]")}, "has the class True, which is no te"),
        ({"class_names": yaml.safe_load("[a, 007, 10]")}, "class 7, .*put the name in quotes, as"),
        ({"templates": [3]}, "has the template 3, which is no text"),
        ({"templates": ["a tint"]}, "needs templates with {} .* found \\['a tint'\\]"),
        ({"templates": []}, "needs templates"),
    ],
)
def test_task_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        task(**settings)


def test_a_complete_cache_that_may_only_be_read_is_used(tmp_path, monkeypatch):
    made = task()
    load(tmp_path / "data", made)
    read_only(monkeypatch, tmp_path / "data")
    is_what_was_drawn(load(tmp_path / "data", made), "train")
    with pytest.raises(OSError, match="Read-only file system"):
        load(tmp_path / "data", made, "val")
