"""Data on disk are compared with what a task expects before any image is opened."""

import made_up.tasks
import pytest
from made_up.hub_data import hub_data, jpeg, write_folders, write_parquet, write_tars
from PIL import Image

from tsv_bench.data import SPLITS, cache, check_source, hub

SIZES = {"train": 30, "test": 8}
TARS = {"image": "jpg", "label": "cls"}
SWAPPED = {"class_names": ("ant", "cat/dog", "bee cell")}
FOUND, EXPECTED = "label 1 is 'bee cell'", "'cat/dog' expected"


@pytest.fixture(autouse=True)
def no_image(monkeypatch):
    """Write files without images, and fail if one is opened."""
    monkeypatch.setattr("made_up.hub_data.encoded", lambda *_, **__: b"no image")
    monkeypatch.setattr(hub, "open_image", lambda *_: pytest.fail("an image was decoded"))
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))


def written(folder, write, sizes):
    """Return the data set's folder. Parquet files get their bytes as an argument."""
    more = {"content": jpeg} if write is write_parquet else {}
    return write(folder / "data", sizes, **more)


@pytest.mark.parametrize(
    ("write", "sizes", "settings", "parts"),
    [
        (write_parquet, SIZES, SWAPPED, (FOUND, EXPECTED)),
        (write_folders, SIZES, SWAPPED, (FOUND, EXPECTED)),
        (write_parquet, {**SIZES, "train": 29}, {}, ("29 images in its split 'train'", "30 exp")),
        (write_folders, {**SIZES, "train": 31}, {}, ("31 images in its split 'train'", "30 exp")),
        (write_tars, {**SIZES, "test": 9}, TARS, ("9 images in its split 'test'", "8 expected")),
        (write_parquet, {"train": 30}, {}, ("no split 'test'; there are train",)),
        (write_folders, {"train": 30}, {}, ("no split 'test'; there are train",)),
        (write_parquet, SIZES, {"image": "img"}, ("no column 'img'; there are image, label",)),
        (write_parquet, SIZES, {"label": "cls"}, ("no column 'cls'; there are image, label",)),
        (write_tars, SIZES, {**TARS, "image": "png"}, ("no column 'png'; there are", "jpg")),
        (write_parquet, SIZES, {"label": "image"}, ("the column 'image' is", "Another column?")),
    ],
)
def test_mistake_is_found_without_looking_at_an_image(tmp_path, write, sizes, settings, parts):
    source = hub_data(written(tmp_path, write, sizes), SIZES, **settings)
    with pytest.raises(ValueError) as raised:
        source.check(SPLITS)
    assert all(part in str(raised.value) for part in parts), raised.value


@pytest.mark.parametrize("write", [write_parquet, write_folders, write_tars])
def test_data_as_expected_pass(tmp_path, write):
    settings = TARS if write is write_tars else {}
    hub_data(written(tmp_path, write, SIZES), SIZES, **settings).check(SPLITS)


def test_only_what_the_splits_come_from_is_checked(tmp_path):
    source = hub_data(written(tmp_path, write_parquet, {"train": 29, "test": 8}), SIZES)
    source.check(["test"])
    with pytest.raises(ValueError, match="29 images in its split 'train'"):
        source.check(["val"])  # which is cut from train


def test_splits_that_are_decoded_already_are_not_checked_again(tmp_path, monkeypatch):
    source = hub_data(written(tmp_path, write_parquet, {"train": 29, "test": 8}), SIZES)
    task = made_up.tasks.task(source=source)
    place = {"folder": tmp_path / "cache", "image_size": 4}
    path = cache.pixel_path(task, "val", **place)
    path.parent.mkdir(parents=True)
    path.touch()
    check_source(task, ["val", "test"], **place)
    with pytest.raises(ValueError, match="29 images in its split 'train'"):
        check_source(task, SPLITS, **place)
    path.with_name("train.npz").touch()
    path.with_name("test.npz").touch()
    monkeypatch.setattr(hub.HubData, "open", lambda _: pytest.fail("the files were opened"))
    check_source(task, SPLITS, **place)


def test_drawn_images_need_no_check(tmp_path):
    def never(split):
        pytest.fail("drawn")

    check_source(made_up.tasks.task(source=never), SPLITS, folder=tmp_path, image_size=4)
    assert not list(tmp_path.iterdir())


def test_data_that_are_not_there_are_named(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="data of pets .made/pets. is not here .*tsv-fetch"):
        hub_data("made/pets", SIZES).check(["test"])
