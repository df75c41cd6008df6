"""The embedded suite: its images, and that the same seed gives the same ones."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from sklearn.datasets import load_digits

from tsv_bench.data import sources
from tsv_bench.data.embedded import (
    DIGIT_ROWS,
    GENERATORS,
    drawn,
    image_rng,
    scanned,
    scanned_digits,
)
from tsv_bench.data.embedded.cameras import CAMERAS
from tsv_bench.data.embedded.figures import SHAPES, SIGNS
from tsv_bench.data.embedded.glyphs import ALPHABETS
from tsv_bench.data.embedded.land import LAND
from tsv_bench.data.embedded.textures import TEXTURES
from tsv_bench.data.task import SPLITS

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"
EVERY = {path.stem: OmegaConf.load(path)[path.stem] for path in sorted(CONF.glob("*.yaml"))}
TASKS = {name: task for name, task in EVERY.items() if "data.sources." in task.source._target_}
DRAWN = sorted(name for name, task in TASKS.items() if task.source._target_.endswith(".drawn"))
CAMERA = "tilted"  # any would do
SETTINGS = {
    "task": "shapes",
    "num_classes": 3,
    "num_images": {"train": 1, "val": 1, "test": 1},
    "camera": CAMERA,
    "seed": 0,
}
# The number of classes of each generator, by its own lists. Digits are 0 to 9, counts 1 to 8.
NUM_CLASSES = {
    "digits": 10,
    "street": 10,
    "counting": 8,
    "colors": 12,
    "signs": len(SIGNS),
    "textures": len(TEXTURES),
    "land": len(LAND),
    "shapes": len(SHAPES),
    **{name: len(letters) for name, letters in ALPHABETS.items()},
}


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_every_class_is_drawn_in_every_style(name):
    for style in ("plain", "mixed", "task"):
        for label in range(NUM_CLASSES[name]):
            image = GENERATORS[name](image_rng("test", name, style, label), label, style)
            assert image.shape == (30, 30, 3) and image.dtype == np.uint8
            assert image.std() > 1, f"class {label} in {style} style is blank"


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_class_names_are_as_many_as_the_generator_draws(name):
    assert len(TASKS[name].class_names) == NUM_CLASSES[name]
    if name in DRAWN:
        assert TASKS[name].source.num_classes == NUM_CLASSES[name]
        assert TASKS[name].source.task == name


def test_every_task_has_a_generator_for_pretraining():
    assert set(TASKS) == set(GENERATORS)


@pytest.mark.parametrize("name", DRAWN)
def test_images_depend_on_task_split_seed_and_index_only(name):
    def draw(split="train", num_images=6, seed=0):
        # One class alone, because labels are shuffled over all images of a draw.
        return [image for image, _ in drawn(name, split, num_images, 1, CAMERA, seed)]

    first = draw()
    for same in (draw(), draw(num_images=9)[:6]):
        assert all(map(np.array_equal, first, same))
    for other in (draw(seed=1), draw(split="val")):
        assert not any(map(np.array_equal, first, other))


@pytest.mark.parametrize("num_images", [12, 14])
def test_classes_are_balanced_and_in_no_order(num_images):
    labels = [label for _, label in drawn("shapes", "train", num_images, 4, CAMERA, 0)]
    counts = np.bincount(labels)
    assert len(counts) == 4 and counts.max() - counts.min() <= 1
    assert labels != sorted(labels) and labels != [i % 4 for i in range(num_images)]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_no_image_is_in_two_splits(name):
    """Compare all images of the digits, and a sample of every drawn task."""
    if name == "digits":
        splits = {split: [image for image, _ in scanned(split)] for split in SPLITS}
    else:
        classes = NUM_CLASSES[name]
        splits = {s: [i for i, _ in drawn(name, s, 40, classes, CAMERA, 0)] for s in SPLITS}
    found = {split: {image.tobytes() for image in images} for split, images in splits.items()}
    for a, b in combinations(SPLITS, 2):
        assert not found[a] & found[b], (a, b)


def test_digits_are_scikit_learns_each_once():
    rows = [row for split in SPLITS for row in range(*DIGIT_ROWS[split])]
    assert sorted(rows) == list(range(1797))

    bunch = load_digits()
    images, labels = zip(*(pair for split in SPLITS for pair in scanned(split)), strict=True)
    assert np.array_equal(np.bincount(labels), np.bincount(bunch.target))
    # An image is enlarged from 8 to 28 pixels inside a border of one, so its mean grey stays, but
    # for clipped overshoot of the bicubic filter. Rows are shuffled, so the lists are sorted.
    assert all(image.shape == (30, 30, 3) and image.dtype == np.uint8 for image in images)
    found = sorted(image[1:-1, 1:-1, 0].mean() for image in images)
    expected = sorted(image.mean() * 255 / 16 for image in bunch.images)
    assert np.abs(np.subtract(found, expected)).max() < 6  # measured: below 4


def test_each_digit_image_is_a_row_of_scikit_learn_with_its_label():
    bunch = load_digits()
    rows = [image.astype(np.uint8).tobytes() for image in bunch.images]
    known = dict(zip(rows, bunch.target, strict=True))
    images, labels = scanned_digits()
    greys = np.rint(images * (16 / 255)).astype(np.uint8)
    assert all(known[g.tobytes()] == label for g, label in zip(greys, labels, strict=True))
    assert len({g.tobytes() for g in greys}) == len(known)


def test_unknown_generator_is_named():
    with pytest.raises(ValueError, match="no generator draws 'animals'"):
        next(sources.drawn("train", **SETTINGS | {"task": "animals"}))


def test_unknown_camera_is_named():
    with pytest.raises(ValueError, match="no camera is 'foggy'; there are tilted"):
        next(sources.drawn("train", **SETTINGS | {"camera": "foggy"}))


def test_num_images_names_every_split():
    with pytest.raises(ValueError, match="'valid' is odd"):
        numbers = {"train": 1, "valid": 1, "val": 1, "test": 1}
        next(sources.drawn("train", **SETTINGS | {"num_images": numbers}))


def mean_image(draw, num_images=200):
    drawn_by = (draw(image_rng("camera", index)) for index in range(num_images))
    return np.mean([image.astype(float) for image in drawn_by], axis=0)


def test_cameras_do_what_they_say():
    bar = np.full((30, 30, 3), 60, np.uint8)
    bar[5:25, 13:17] = 200  # upright
    tilted, blurred, faint, noisy = (
        mean_image(lambda rng, name=name: CAMERAS[name](rng, bar))[..., 0]
        for name in ("tilted", "blurred", "faint", "noisy")
    )
    # Clockwise: its upper end moves to the right, the lower one to the left.
    assert tilted[7, 17:23].mean() > tilted[7, 7:13].mean() + 20
    assert tilted[22, 7:13].mean() > tilted[22, 17:23].mean() + 20
    assert 70 < blurred[15, 12] < 150 and blurred[15, 15] < 200  # edges run, nothing moves
    assert np.argmax(blurred[15]) in (14, 15)
    contrast = faint[10:20, 13:17].mean() - faint[10:20, :10].mean()
    assert 0.25 * 140 < contrast < 0.35 * 140  # a fifth to two fifths of 140
    assert np.abs(noisy - bar[..., 0]).max() < 15  # 200 draws average the noise out
    one = CAMERAS["noisy"](image_rng("camera", 0), bar).astype(float)
    assert 20 < (one - bar).std() < 45
