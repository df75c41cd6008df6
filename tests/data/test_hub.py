"""Data from the hub and from folders: small data sets with every form of the twenty."""

import io
import logging
import os

import datasets
import numpy as np
import pytest
from made_up.hub_data import (
    encoded,
    hub_data,
    image,
    label,
    write_folders,
    write_parquet,
    write_tars,
)
from PIL import Image
from stand_ins.loopback_hub import LoopbackHub

from tsv_bench import hub
from tsv_bench.data import splits
from tsv_bench.data.task import SPLITS, describe

SIZES = {"train": 30, "test": 8}
TRAIN, VAL = (rows.tolist() for rows in splits.train_and_val_rows(30))


def is_split(source, split, rows, own="train", labels=label, **settings):
    """Check that ``source`` yields these rows of the data set's split ``own``, in this order."""
    assert source.num_images(split) == len(rows)
    images, found = zip(*source(split), strict=True)
    assert list(found) == [labels(row) for row in rows]
    for shown, row in zip(images, rows, strict=True):
        assert np.array_equal(shown, image(row, own, **settings))


def is_whole(source, test="test", **settings):
    """Check all three splits of a data set with ``SIZES``."""
    is_split(source, "train", TRAIN, **settings)
    is_split(source, "val", VAL, **settings)
    is_split(source, "test", range(8), test, **settings)


def test_reads_the_rows_of_each_split_in_the_papers_order(tmp_path):
    is_whole(hub_data(write_parquet(tmp_path, SIZES), SIZES))


def test_images_in_folders_named_by_class_have_the_order_of_their_names(tmp_path):
    source = hub_data(write_folders(tmp_path, SIZES), SIZES)
    train, test = (sorted(range(n), key=lambda row: (label(row), row)) for n in SIZES.values())
    is_split(source, "train", [train[row] for row in TRAIN])
    is_split(source, "val", [train[row] for row in VAL])
    is_split(source, "test", test, "test")


def test_places_are_those_of_the_split_though_files_are_read_from_front_to_back(tmp_path):
    source = hub_data(write_parquet(tmp_path, SIZES), SIZES)
    places = [image.index for image in source.undecoded("train")]
    assert [TRAIN[place] for place in places] == sorted(TRAIN)


def test_a_validation_split_of_its_own_is_used_when_named(tmp_path):
    sizes = {**SIZES, "valid": 5}
    readme = "---\nconfigs:\n- config_name: default\n  data_files:\n" + "".join(
        f"  - {{split: {name}, path: data/{name}-*}}\n" for name in sizes
    )
    (write_parquet(tmp_path, sizes) / "README.md").write_text(readme + "---\n")
    own = hub_data(tmp_path, sizes, splits={"train": "train", "val": "valid", "test": "test"})
    is_split(own, "val", range(5), "valid")
    is_split(own, "train", range(30))
    is_whole(hub_data(tmp_path, sizes))  # the paper uses no val split of the data set


def test_food101_has_its_test_images_in_a_split_named_validation(tmp_path):
    sizes = {"train": 30, "validation": 8}
    source = hub_data(
        write_parquet(tmp_path, sizes), sizes, splits={"train": "train", "test": "validation"}
    )
    is_whole(source, test="validation")


def test_one_split_can_be_trained_and_tested_on(tmp_path):  # EuroSAT as the paper's figures
    source = hub_data(
        write_parquet(tmp_path, {"train": 30}),
        {"train": 30},
        splits={"train": "train", "test": "train"},
    )
    is_split(source, "test", range(30))
    is_split(source, "val", VAL)


README = """---
configs:
- config_name: full_numbers
  data_files:
  - {split: train, path: full_numbers/train-*}
- config_name: cropped_digits
  data_files:
  - {split: train, path: cropped_digits/train-*}
  - {split: test, path: cropped_digits/test-*}
  - {split: extra, path: cropped_digits/extra-*}
dataset_info:
- config_name: cropped_digits
  features:
  - {name: image, dtype: image}
  - name: label
    dtype: {class_label: {names: {'0': ant, '1': bee cell, '2': cat/dog}}}
- config_name: full_numbers
  features:
  - {name: image, dtype: image}
---
Numbers.
"""


@pytest.mark.parametrize("extra", [True, False], ids=["all is here", "only what was fetched"])
def test_svhn_has_a_configuration_and_an_extra_split(tmp_path, extra):
    """The README has the names of the classes. Not all files that it lists are here."""
    sizes = {**SIZES, **({"extra": 12} if extra else {})}
    pattern = "cropped_digits/{split}-{shard}.parquet"
    plain = datasets.Value("int64")
    write_parquet(tmp_path, sizes, pattern=pattern, feature=plain)
    (tmp_path / "README.md").write_text(README)
    is_whole(hub_data(tmp_path, SIZES, config="cropped_digits"))
    with pytest.raises(ValueError, match="label 0 is 'ant', 'x' expected"):
        list(hub_data(tmp_path, SIZES, config="cropped_digits", class_names="xyz")("val"))


def test_a_folder_without_a_readme_needs_no_configuration(tmp_path):
    is_whole(hub_data(write_parquet(tmp_path, SIZES), SIZES, config="cropped_digits"))


def test_fer2013_is_webdataset_tars(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = hub_data(write_tars(tmp_path, SIZES), SIZES, image="jpg", label="cls")
    for split, rows in {"train": TRAIN, "val": VAL, "test": range(8)}.items():
        images, labels = zip(*source(split), strict=True)
        assert list(labels) == [label(row) for row in rows]
        own = "test" if split == "test" else "train"
        files = [io.BytesIO(encoded(row, own, "JPEG")) for row in rows]
        assert all(map(np.array_equal, images, map(Image.open, files)))
    assert "its labels have no names; only their range is checked" in caplog.text


def is_two(row):
    return label(row) == 2


@pytest.mark.parametrize(("dtype", "labels", "classes"), [("bool", is_two, 2), ("int64", label, 3)])
def test_labels_may_be_booleans_or_plain_numbers(tmp_path, caplog, dtype, labels, classes):
    caplog.set_level(logging.INFO)
    write_parquet(tmp_path, SIZES, feature=datasets.Value(dtype), labels=labels)
    source = hub_data(tmp_path, SIZES, num_classes=classes, class_names=None)
    is_whole(source, labels=labels)
    assert all(type(image.label) is int for image in source.undecoded("test"))
    assert "only their range is checked" in caplog.text


def test_pets_have_a_second_label_column(tmp_path):
    more = {"label_cat_dog": (datasets.ClassLabel(names=["cat", "dog"]), lambda row: row % 2)}
    write_parquet(tmp_path, SIZES, more=more)
    is_whole(hub_data(tmp_path, SIZES))
    second = {"label": "label_cat_dog", "num_classes": 2, "class_names": ("cat", "dog")}
    is_whole(hub_data(tmp_path, SIZES, **second), labels=lambda row: row % 2)


def test_columns_have_the_names_that_the_task_says(tmp_path):
    write_parquet(tmp_path, SIZES, columns=("img", "fine_label"))
    is_whole(hub_data(tmp_path, SIZES, image="img", label="fine_label"))


def test_grayscale_images_stay_gray_for_the_backbone_to_convert(tmp_path):
    write_parquet(tmp_path, SIZES, content=lambda *row: encoded(*row, gray=True))
    is_whole(hub_data(tmp_path, SIZES), gray=True)


@pytest.mark.parametrize(
    "names", [("Ant", "bee_cell", "cat-dog"), ("ANT ", "beecell", "Cat / Dog")]
)
def test_class_names_may_be_spelt_in_other_ways(tmp_path, names):
    is_whole(hub_data(write_parquet(tmp_path, SIZES), SIZES, class_names=names))


@pytest.mark.parametrize("plain", [True, False], ids=["bytes and path", "bytes"])
def test_images_in_columns_that_are_not_marked_as_such_are_read(tmp_path, plain):
    from pyarrow import parquet

    for path in write_parquet(tmp_path, SIZES).rglob("*.parquet"):
        table = parquet.read_table(path)
        if not plain:
            images = table.column("image").combine_chunks().field("bytes")
            table = table.set_column(0, "image", images)
        parquet.write_table(table.replace_schema_metadata(None), path)
    is_whole(hub_data(tmp_path, SIZES, class_names=None))


def test_orientation_noted_by_a_camera_is_left_alone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter

    def turned(row, split):
        file = io.BytesIO()
        image(row, split).save(file, "PNG", exif=exif)
        return file.getvalue()

    is_whole(hub_data(write_parquet(tmp_path, SIZES, content=turned), SIZES))


def test_nothing_is_written_beside_the_data_nor_in_the_caches_of_libraries(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = write_parquet(tmp_path / ".cache" / "data", SIZES)  # hidden, as the hub's cache is
    is_whole(hub_data(folder, SIZES))
    assert {path.name for path in tmp_path.rglob("*") if not path.is_dir()} == {
        f"{split}-0000{shard}.parquet" for split in SIZES for shard in (0, 1)
    }
    assert not (tmp_path / "datasets").exists()


def test_fingerprint_changes_with_the_files_of_a_folder_but_not_with_its_place(tmp_path):
    a, b = (write_folders(tmp_path / name, SIZES) for name in "ab")
    for path in a.rglob("*.png"):  # a copy may keep the time
        stamp = path.stat().st_mtime_ns
        os.utime(b / path.relative_to(a), ns=(stamp, stamp))
    assert describe(hub_data(a, SIZES)) == describe(hub_data(b, SIZES))
    c = write_folders(tmp_path / "c", SIZES, labels=lambda row: row % 3)
    others = [hub_data(c, SIZES), hub_data(a, SIZES, transpose=True), hub_data(a, SIZES, label="y")]
    assert describe(hub_data(a, SIZES)) not in [describe(other) for other in others]


def test_fingerprint_of_a_data_set_of_the_hub_needs_no_files():
    first, second = (hub_data("owner/name", SIZES, revision=name) for name in ("a", "b"))
    assert describe(first) != describe(second)
    assert describe(first)["function"] == "tsv_bench.data.hub.HubData"


def test_what_is_to_be_fetched_is_said_and_nothing_for_a_folder(tmp_path):
    known = {"revision": "abc", "num_bytes": 5, "licence": "mit"}
    (need,) = hub_data("owner/pets", SIZES, patterns=["data/*"], **known).needs()
    assert need == hub.Need(
        what="data of pets",
        repo="owner/pets",
        kind="dataset",
        patterns=("data/*", "README.md"),
        **known,
    )
    assert hub_data("owner/pets", SIZES).needs()[0].patterns == ()
    assert hub_data(tmp_path, SIZES).needs() == []


def test_data_fetched_from_a_hub_are_read_without_a_network(tmp_path, monkeypatch):
    pattern = "cropped_digits/{split}-{shard}.parquet"
    write_parquet(tmp_path / "made", {**SIZES, "extra": 12}, pattern=pattern)
    files = {
        str(p.relative_to(tmp_path / "made")): p for p in (tmp_path / "made").rglob("*.parquet")
    }
    files = {name: path.read_bytes() for name, path in files.items()}
    wanted = ["cropped_digits/train*", "cropped_digits/test*"]
    source = hub_data("made/numbers", SIZES, config="cropped_digits", patterns=wanted)
    with LoopbackHub(tmp_path / "served") as served:
        served.add("dataset", "made/numbers", {**files, "README.md": README})
        served.use(monkeypatch, tmp_path / "home")
        with pytest.raises(OSError, match="data of numbers .*tsv-fetch"):
            list(source("val"))
        hub.fetch(source.needs()[0], progress=False)
        assert "extra" not in str(served.contents())
    is_whole(source)
    assert set(SPLITS) > set(source.splits)
