"""A folder of images is counted, split and named by where its files lie."""

import os
import shutil

import numpy as np
import pytest
import torch
from made_up.image_folders import SIZE, picture, write
from PIL import Image

from tsv_bench.data import SPLITS, Task, check_source, load_split
from tsv_bench.data.image_folder import ImageFolder

COLORS = ("deep_red", "Green", "blue")
SORTED = ("Green", "blue", "deep_red")


def source(folder, **settings):
    return ImageFolder(folder=str(folder), **settings)


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    return write(tmp_path_factory.mktemp("colors"), COLORS, 20)


def names_in(made, split):
    home = made.folder
    return [os.path.relpath(path, home) for path, _ in made.images[split]]


def test_classes_are_sorted_and_named_by_their_folders(colors):
    made = source(colors)
    assert made.classes == SORTED and made.class_names == ("Green", "blue", "deep red")
    assert made.counts == [{"train": 14, "val": 2, "test": 4}] * 3
    assert made.num_classes == 3 and [made.num_images(split) for split in SPLITS] == [42, 6, 12]


def test_labels_are_those_of_the_pictures(colors):
    for split in SPLITS:
        for image, label in source(colors)(split):
            channel = int(np.asarray(image)[0, 0].argmax())
            assert COLORS[channel] == SORTED[label] and image.size == SIZE


def test_no_image_is_in_two_splits_and_the_split_is_that_of_every_machine(colors, tmp_path):
    made = source(colors)
    every = [name for split in SPLITS for name in names_in(made, split)]
    assert len(every) == len(set(every)) == 60
    # The hash of a name decides, so these stay.
    assert names_in(made, "val")[:3] == ["Green/007.png", "Green/013.png", "blue/012.png"]
    shutil.copytree(colors, tmp_path / "copy")
    picture(tmp_path / "copy" / "blue" / "new.png", 2, 50)
    again = source(tmp_path / "copy")
    moved = set(names_in(made, "test")) ^ set(names_in(again, "test"))
    assert len(moved) <= 2  # the new one may push one out


def test_splits_of_the_owner_are_taken(tmp_path):
    write(tmp_path, COLORS, 10, "train")
    write(tmp_path, COLORS, 3, "test")
    assert source(tmp_path).counts == [{"train": 9, "val": 1, "test": 3}] * 3
    write(tmp_path, COLORS, 2, "Validation")
    made = source(tmp_path)
    assert made.counts == [{"train": 10, "val": 2, "test": 3}] * 3
    assert all(name.startswith("Validation/") for name in names_in(made, "val"))
    shutil.rmtree(tmp_path / "Validation")
    shutil.rmtree(tmp_path / "test")  # then both are set aside
    assert source(tmp_path).counts == [{"train": 7, "val": 1, "test": 2}] * 3


def test_a_class_may_be_called_train(tmp_path):
    assert source(write(tmp_path, ("train", "bus"))).classes == ("bus", "train")


@pytest.mark.parametrize(
    "given",
    [
        {"blue": "sky", "deep_red": "rose", "Green": "leaf"},
        ["Deep Red", "green", "BLUE"],  # any order, any spelling
    ],
)
def test_names_stay_with_their_folders(colors, given):
    made = source(colors, class_names=given)
    expected = ("leaf", "sky", "rose") if isinstance(given, dict) else ("green", "BLUE", "Deep Red")
    assert made.class_names == expected and made.images == source(colors).images


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["leaf", "sky", "rose"], "their order says nothing. .*Green: leaf, .* found leaf, sky, r"),
        (["blue", "green"], "not those of its folders"),
        ({"blue": "a", "Green": "b"}, "'deep_red' is a folder that class_names do not name"),
        ({"blue": "a", "Green": "b", "red": "c"}, "'deep_red' is a folder"),
        ({"blue": "a", "Green": "b", "deep_red": "c", 7: "d"}, "'7' is no folder"),
    ],
)
def test_names_that_could_be_of_another_folder_are_refused(colors, given, message):
    with pytest.raises(ValueError, match=message):
        source(colors, class_names=given)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"": ()}, "has no folder for each class. Expected is .*<class>/"),
        ({"": ("one",)}, "has one class, 'one'; a task has two"),
        ({"train": COLORS, "val": COLORS}, "If val is what you test on, call it test"),
        ({"train": COLORS, "test": COLORS, "notes": ("a",)}, "the folders notes, test, train. Exp"),
        ({"train": COLORS, "training": COLORS, "test": COLORS}, "Expected are train and test"),
        ({"train": COLORS, "test": ("blue",)}, "test and train do not have the same .*'Green'"),
    ],
)
def test_other_folders_are_refused(tmp_path, folders, message):
    for inside, classes in folders.items():
        write(tmp_path, classes, 3, inside)
    with pytest.raises(ValueError, match=message):
        source(tmp_path)


def test_what_is_no_folder_of_classes_is_said(tmp_path):
    with pytest.raises(OSError, match="there is no folder .*nowhere"):
        source(tmp_path / "nowhere")
    picture(tmp_path / "a.png", 0, 0)
    with pytest.raises(ValueError, match="no folder for each class, but 1 images outside of any"):
        source(tmp_path)
    write(tmp_path, ("many",))
    write(tmp_path, ("few",), 2)
    with pytest.raises(ValueError, match="class 'few' has 2 images, and none for train. Each"):
        source(tmp_path)


def test_files_that_are_not_used_are_listed(colors, tmp_path):
    shutil.copytree(colors, tmp_path / "pics")
    for name in ("notes.txt", "blue/raw.cr2", "blue/.hidden", "a.png"):
        (tmp_path / "pics" / name).touch()
    (tmp_path / "pics" / ".cache").mkdir()
    made = source(tmp_path / "pics")
    names = [os.path.relpath(path, made.folder) for path in made.left_out]
    assert names == ["a.png", "blue/raw.cr2", "notes.txt"]
    assert made.images.keys() == source(colors).images.keys() and made.num_images("train") == 42


def test_photographs_are_turned_as_they_say(tmp_path):
    write(tmp_path, ("a", "b"), 3)
    turned = Image.Exif()
    turned[0x0112] = 6  # held upright
    for name in ("000", "001", "002"):
        picture(tmp_path / "a" / f"{name}.png", 0, 0, exif=turned)
    sizes = {label: image.size for image, label in source(tmp_path)("train")}
    assert sizes == {0: SIZE[::-1], 1: SIZE}


def test_a_task_of_it_is_decoded_and_remembered(colors, tmp_path):
    task = Task(name="my_colors", source=source(colors))
    assert (task.label, task.epochs) == ("My colors", 10)
    assert task.prompts[2] == ["a photo of a deep red"]
    place = {"folder": tmp_path, "image_size": 9}

    def to_pixels(image):
        return torch.from_numpy(np.array(image.crop((0, 0, 9, 9)))).permute(2, 0, 1)

    check_source(task, SPLITS, **place)
    split = load_split(task, "val", to_pixels=to_pixels, **place)
    assert split.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert split.images[0, :, 0, 0].argmax() == 1  # Green
    other = load_split(
        task, "val", to_pixels=lambda i: 255 - to_pixels(i), geometry="squash-bicubic", **place
    )
    assert torch.equal(other.images, 255 - split.images)


def test_another_image_is_another_task(colors, tmp_path):
    def fingerprint():
        return Task(name="colors", source=source(tmp_path / "pics")).fingerprint

    shutil.copytree(colors, tmp_path / "pics")  # with its times
    first = fingerprint()
    assert first == Task(name="colors", source=source(colors)).fingerprint
    picture(tmp_path / "pics" / "blue" / "000.png", 2, 77)
    assert fingerprint() != first


def test_a_damaged_or_lost_image_is_named(colors, tmp_path):
    shutil.copytree(colors, tmp_path / "pics")
    (tmp_path / "pics/blue/000.png").write_bytes(b"none")
    made = source(tmp_path / "pics")
    with pytest.raises(OSError, match="blue/000.png is not an image that can be read"):
        for split in SPLITS:
            list(made(split))
    (tmp_path / "pics/blue/000.png").unlink()
    with pytest.raises(OSError, match="blue/000.png was there and is no longer"):
        made.check(SPLITS)
