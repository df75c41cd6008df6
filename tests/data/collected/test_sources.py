"""The tasks of pictures that people made: yamls, splits and labels, out of the real packages."""

from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from tsv_bench.data import cache, sources
from tsv_bench.data.collected import scans
from tsv_bench.data.collected.icon_sets import ICON_SETS, bare, glyphs, icon_masks
from tsv_bench.data.collected.originals import distinct
from tsv_bench.data.collected.sources import icons, letters
from tsv_bench.data.collected.typefaces import letter_masks
from tsv_bench.data.task import SPLITS, Task, describe
from tsv_bench.process.extras import EXTRAS

CONF = Path(__file__).resolve().parents[3] / "conf"
NAMES = ("arrow_icons", "face_icons", "icons", "number_icons", "script")
TASKS = {
    name: OmegaConf.to_container(OmegaConf.load(CONF / "task" / f"{name}.yaml"))[name]
    for name in (*NAMES, "mnist5k")
}
ICONS = [name for name in NAMES if "sets" in TASKS[name]["source"]]
with_packages = pytest.mark.skipif(
    any(find_spec(module) is None for module in EXTRAS["pictures"]),
    reason="needs the extra pictures",
)


@pytest.fixture(scope="module")
def originals():
    """Task -> split -> masks, of every task but the scans."""
    found = {}
    for name in NAMES:
        of = TASKS[name]["source"]
        if "sets" in of:
            splits = {split: icon_masks(of["names"], sets) for split, sets in of["sets"].items()}
        else:
            places = of["typefaces"].items()
            splits = {split: letter_masks(of["letters"], faces) for split, faces in places}
        found[name] = distinct(splits)
    return found


@pytest.mark.parametrize("name", ICONS)
def test_classes_are_those_that_names_has(name):
    assert TASKS[name]["class_names"] == list(TASKS[name]["source"]["names"])


def test_letters_are_both_cases_of_their_class():
    task = TASKS["script"]
    assert task["source"]["letters"] == [f"{c}{c.lower()}" for c in task["class_names"]]


@pytest.mark.parametrize("name", NAMES)
def test_no_maker_is_in_two_splits(name):
    source = TASKS[name]["source"]
    makers = source.get("sets") or source["typefaces"]
    assert set(makers) == set(SPLITS) == set(source["num_images"])
    every = [maker for split in SPLITS for maker in makers[split]]
    assert len(every) == len(set(every))
    assert source["task"] == name


@with_packages
@pytest.mark.parametrize("name", ICONS)
def test_every_name_is_of_an_icon_of_the_task(name):
    source = TASKS[name]["source"]
    sets = [one for split in SPLITS for one in source["sets"][split]]
    assert set(sets) <= set(ICON_SETS)
    for entry in (str(entry) for names in source["names"].values() for entry in names):
        of_set, _, icon = entry.rpartition("/")
        assert any(icon in glyphs(one) for one in ([of_set] if of_set else sets)), entry


@with_packages
@pytest.mark.parametrize("name", NAMES)
def test_every_class_is_trained_on_and_tested(name, originals):
    classes = set(range(len(TASKS[name]["class_names"])))
    for split in ("train", "test"):
        assert set(originals[name][split]) == classes, split
    # Makers copied each other's arrows and hearts: not every class has an original for validation.
    assert len(originals[name]["val"]) >= 0.4 * len(classes)


@with_packages
@pytest.mark.parametrize(("source", "name"), [(icons, "face_icons"), (letters, "script")])
def test_images_have_the_form_and_labels_of_the_task(source, name):
    given = {k: v for k, v in TASKS[name]["source"].items() if not k.startswith("_")}
    small = given | {"num_images": dict.fromkeys(SPLITS, 26)}
    drawn = {split: list(source(split, **small)) for split in ("val", "test")}
    for split, pairs in drawn.items():
        assert len(pairs) == 26, split
        assert all(image.shape == (30, 30, 3) and image.dtype == np.uint8 for image, _ in pairs)
    labels = {label for _, label in drawn["test"]}
    assert labels == set(range(len(TASKS[name]["class_names"])))


@with_packages
def test_scans_are_each_once_and_in_one_split():
    num_images = TASKS["mnist5k"]["source"]["num_images"]
    images, labels = scans.mnist()
    assert np.array_equal(np.bincount(labels), [500] * 10)
    assert sum(num_images.values()) == len(images) == len({image.tobytes() for image in images})
    pairs = {split: list(scans.scanned(split, num_images)) for split in SPLITS}
    assert {split: len(found) for split, found in pairs.items()} == num_images
    rows = {split: {image.tobytes() for image, _ in found} for split, found in pairs.items()}
    assert not any(rows[a] & rows[b] for a, b in combinations(SPLITS, 2))
    known = {np.pad(i, 1).tobytes(): label for i, label in zip(images, labels, strict=True)}
    assert all(known[image[..., 0].tobytes()] == label for image, label in pairs["test"])
    assert pairs["test"][0][0].shape == (30, 30, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bxs-heart", "heart"),
        ("heart-fill", "heart"),
        ("favorite_border", "favorite"),
        ("music-note", "music-note"),
        ("arrow-fat-line-up-thin", "arrow-fat-line-up"),
        ("Moon-Outline-Thick", "moon"),
    ],
)
def test_a_bare_name_has_no_style(name, expected):
    assert bare(name) == expected


def test_an_unknown_set_is_named_beside_those_that_there_are():
    with pytest.raises(ValueError, match="no set of icons is 'feather'; there are bootstrap, "):
        glyphs("feather")


def test_packages_are_looked_for_before_a_run(tmp_path, monkeypatch):
    def check():
        raise ValueError("not installed")

    place = {"folder": tmp_path, "image_size": 30}
    monkeypatch.setattr(icons, "check", check)
    task = Task(name="mine", class_names=("a", "b"), source=icons)
    with pytest.raises(ValueError, match="not installed"):
        cache.check_source(task, ["val"], **place)
    monkeypatch.setattr(cache, "pixel_path", lambda *given: tmp_path)  # decoded already
    cache.check_source(task, ["val"], **place)
    monkeypatch.undo()
    drawn = Task(name="mine", class_names=("a", "b"), source=sources.scanned_digits)
    cache.check_source(drawn, ["val"], **place)


def test_a_list_of_the_configuration_is_described_as_a_list():
    class Source:
        def settings(self):
            return OmegaConf.create({"names": {"a": ["x", 1]}, "letters": ["Aa"]})

    assert describe(Source())["settings"] == {"names": {"a": ["x", 1]}, "letters": ["Aa"]}
