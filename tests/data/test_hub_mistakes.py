"""Data that are not what a task expects: what was found, what was expected, what to do."""

from pathlib import Path

import datasets
import made_up.tasks
import pytest
from made_up.hub_data import encoded, hub_data, write_folders, write_parquet, write_tars

SIZES = {"train": 30, "test": 8}


def refuses(source, message, split="test", error=ValueError):
    with pytest.raises(error, match=message):
        list(source(split))


def one_refusal(source, *parts, split="test", error=ValueError):
    with pytest.raises(error) as raised:
        list(source(split))
    for part in parts:
        assert part in str(raised.value)


def test_swapped_classes_are_shown_in_both_orders(tmp_path):
    swapped = ("ant", "cat/dog", "bee cell")
    one_refusal(
        hub_data(write_parquet(tmp_path, SIZES), SIZES, class_names=swapped),
        "its classes in another order",
        "label 1 is 'bee cell', 'cat/dog' expected; label 2 is 'cat/dog', 'bee cell' expected",
        "2 of 3 differ",
        "Fetch the data set that the task's yaml names",
    )


def test_labels_sorted_as_strings_are_found(tmp_path):
    """GTSRB and Flowers102 have copies with the classes in the order 0, 1, 10, 11, 2, ..."""
    names = [str(number) for number in range(12)]
    by_string = datasets.ClassLabel(names=sorted(names))
    source = hub_data(
        write_parquet(tmp_path, SIZES, feature=by_string), SIZES, num_classes=12, class_names=names
    )
    one_refusal(source, "in another order", "label 2 is '10', '2' expected", "10 of 12 differ")


def test_other_classes_are_not_called_another_order(tmp_path):
    source = hub_data(write_parquet(tmp_path, SIZES), SIZES, class_names=("ant", "bee", "cat/dog"))
    refuses(source, "has other classes: label 1 is 'bee cell', 'bee' expected")


def test_names_that_a_yaml_does_not_list_are_shown_and_not_passed_over(tmp_path):
    """A list of the task's own could have another order, and nothing would compare the two."""
    source = hub_data(write_folders(tmp_path, SIZES), SIZES, class_names=None)
    refuses(source, "labels ant, bee cell, cat_dog, in this order.*Write class_names: ")


def test_number_of_classes_is_compared(tmp_path):
    source = hub_data(
        write_folders(tmp_path, SIZES), SIZES, num_classes=2, class_names=("ant", "bee")
    )
    refuses(source, r"has 3 classes, 2 expected.*begins \['ant', 'bee cell', 'cat_dog'\]")


@pytest.mark.parametrize("write", [write_parquet, write_folders, write_tars])
@pytest.mark.parametrize("found", [29, 31])
def test_size_is_compared_before_an_image_is_read(tmp_path, write, found):
    more = {"content": lambda *row: b"no image"} if write is write_parquet else {}
    columns = {"image": "jpg", "label": "cls"} if write is write_tars else {}
    source = hub_data(write(tmp_path, {**SIZES, "train": found}, **more), SIZES, **columns)
    refuses(source, f"has {found} images in its split 'train', 30 expected", split="val")


@pytest.mark.parametrize("column", ["image", "label"])
def test_missing_column_is_named_with_those_that_are_there(tmp_path, column):
    write_parquet(tmp_path, SIZES, columns=("img", "fine_label"))
    columns = {"image": "img", "label": "fine_label", column: column}
    refuses(
        hub_data(tmp_path, SIZES, **columns), f"no column '{column}'; there are img, fine_label"
    )


def test_missing_split_is_named_with_those_that_are_there(tmp_path):
    write_parquet(tmp_path, {"train": 30, "validation": 8})
    refuses(hub_data(tmp_path, SIZES), "no split 'test'; there are train, validation", split="val")


README = """---
configs:
- config_name: full_numbers
  data_files: [{split: train, path: data/train-*}, {split: test, path: data/test-*}]
- config_name: cropped_digits
  data_files: [{split: train, path: data/train-*}, {split: test, path: absent/test-*}]
---
"""


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (None, "several configurations; there are full_numbers, cropped_digits"),
        ("digits", "no configuration 'digits'; there are full_numbers, cropped_digits"),
        (
            "cropped_digits",
            "no file of the split 'test', which is to be absent/test-",
        ),  # listed, and not there
    ],
)
def test_configuration_is_named_with_those_that_are_there(tmp_path, named, message):
    (write_parquet(tmp_path, SIZES) / "README.md").write_text(README)
    refuses(hub_data(tmp_path, SIZES, config=named), message)


@pytest.mark.parametrize(
    "place", ["/etc/test-*", "../test-*", "a/../../test-*", "https://a.b/test", "zip://a::test.zip"]
)
@pytest.mark.parametrize("key", ["data_files", "data_dir"])
def test_readme_that_names_data_elsewhere_is_refused(tmp_path, place, key):
    readme = f"---\nconfigs:\n- config_name: default\n  {key}: {place}\n---\n"
    (write_parquet(tmp_path, SIZES) / "README.md").write_text(readme)
    refuses(hub_data(tmp_path, SIZES), "README.md names data at '.*, outside its folder. Copy")


@pytest.mark.parametrize(
    "yaml",
    [
        "configs: [",
        "configs: 3",
        "configs: [{config_name: default, data_files: 3}]",
        "configs: [{config_name: default, data_dir: [1]}]",
        "dataset_info: [3]",
        "a: " + "[" * 500 + "]" * 500,
    ],
)
def test_readme_that_says_nothing_sensible_is_named(tmp_path, yaml):
    (write_parquet(tmp_path, SIZES) / "README.md").write_text(f"---\n{yaml}\n---\n")
    with pytest.raises((OSError, ValueError)):
        list(hub_data(tmp_path, SIZES)("test"))


@pytest.mark.parametrize("label", [-1, 3, None])
def test_label_out_of_range_is_named_with_its_row(tmp_path, label):
    """Data sets of the hub have the label -1 if the labels are kept secret."""
    write_parquet(
        tmp_path,
        SIZES,
        feature=datasets.Value("int64"),
        labels=lambda row: label if row == 5 else 0,
    )
    refuses(
        hub_data(tmp_path, SIZES, class_names=None),
        f"row 5 of the split 'test' has the label {label}; 0 to 2 expected",
    )


@pytest.mark.parametrize(
    ("column", "found"), [("image", "ClassLabel"), ("label", "must hold|is string")]
)
def test_column_of_another_kind_is_refused(tmp_path, column, found):
    more = {"words": (datasets.Value("string"), str)}
    write_parquet(tmp_path, SIZES, more=more)
    other = {"image": {"image": "label"}, "label": {"label": "words"}}[column]
    refuses(hub_data(tmp_path, SIZES, **other), f"the column '.*{found}.*Another column")


def broken(row, split):
    """Row 6 is cut short, as by an interrupted copy."""
    content = encoded(row, split)
    return content[: len(content) // 2] if row == 6 else content


@pytest.mark.parametrize(
    "content", [broken, lambda row, split: b"<html>" if row == 6 else encoded(row, split)]
)
def test_corrupt_image_is_named_with_its_shard_and_row(tmp_path, content):
    source = hub_data(write_parquet(tmp_path, SIZES, content=content), SIZES)
    one_refusal(
        source,
        f"{tmp_path / 'data' / 'test-00001.parquet'}, row 2 is not an image that can be read",
        "Fetch or copy that file again",
        error=OSError,
    )


def test_corrupt_image_in_a_folder_is_named_by_its_file(tmp_path):
    write_folders(tmp_path, SIZES)
    path = sorted((tmp_path / "test").rglob("*.png"))[3]
    path.write_bytes(path.read_bytes()[:-30])
    one_refusal(hub_data(tmp_path, SIZES), f"{path}, row 3 is not an image", error=OSError)


def test_corrupt_image_in_a_tar_is_named_with_tar_and_member(tmp_path, monkeypatch):
    monkeypatch.setattr("made_up.hub_data.encoded", lambda row, *rest: b"" if row == 6 else b"jpg")
    source = hub_data(write_tars(tmp_path, SIZES), SIZES, image="jpg", label="cls")
    images = {image.index: image for image in source.undecoded("test")}
    with pytest.raises(OSError, match=r"test/1\.tar, row 6 of the split \(s00006\.jpg\)"):
        images[6].open()


def test_corrupt_image_of_another_split_is_not_decoded(tmp_path):
    """Row 6 of train is validated on; the images to train on are whole."""
    source = hub_data(
        write_parquet(tmp_path, {"train": 30, "test": 5}, content=broken), {"train": 30, "test": 5}
    )
    val = 6 in source.rows("val")
    assert len(list(source("train" if val else "val"))) == (27 if val else 3)
    refuses(source, "row 6 is not an image", split="val" if val else "train", error=OSError)


@pytest.mark.parametrize("name", ["data/test-00001.parquet", "data/train-00000.parquet"])
def test_shard_cut_short_is_named(tmp_path, name):
    path = write_parquet(tmp_path, SIZES) / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises((OSError, ValueError)) as raised:
        list(hub_data(tmp_path, SIZES)(Path(name).name.split("-")[0]))
    assert str(path) in str(raised.value)


def test_script_is_not_run(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "made.py").write_text("raise SystemExit('run')")
    refuses(hub_data(folder, SIZES), "no split 'test'; there are train")


@pytest.mark.parametrize("repo", ["no/such/folder", "/no/such", "./mine", "mine"])
def test_folder_that_is_not_there_is_named(repo):
    refuses(hub_data(repo, SIZES), f"there is no folder {repo}", error=OSError)


def test_data_that_were_not_fetched_are_named_with_what_fetches_them(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    refuses(hub_data("made/pets", SIZES), "made/pets.*tsv-fetch", error=OSError)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": {"train": "train"}}, r"must both name train, test.*\['train'\]"),
        ({"sizes": {"train": 30}}, r"\['test', 'train'\] and \['train'\]"),
        ({"sizes": {"train": 30, "test": 0}}, "sizes.test=0 is not a number of images"),
        ({"sizes": {"train": 9, "test": 8}}, "of 9 images of train .* Name a split"),
        ({"num_classes": 4}, "3 class_names, num_classes=4"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"made/pets: .*{message}"):
        hub_data("made/pets", None, **{"sizes": SIZES, **settings})


TASK_SIZES = {"train": 27, "val": 3, "test": 8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": {"train": 27, "test": 8}}, "needs sizes with the images of train, val, test"),
        ({"sizes": {**TASK_SIZES, "val": 4}}, "'val': 4.* images, its source has .*'val': 3"),
        ({"class_names": ["a", "b"]}, "has 2 class names, its source 3 classes"),
    ],
)
def test_task_that_does_not_fit_its_source_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        made_up.tasks.task(source=hub_data("made/pets", SIZES), **settings)


def test_task_keeps_what_is_expected_of_it():
    made = made_up.tasks.task(
        source=hub_data("made/pets", SIZES), sizes=TASK_SIZES, variant="as in the paper"
    )
    assert (made.sizes, made.variant) == (TASK_SIZES, "as in the paper")
    plain = made_up.tasks.task(source=hub_data("made/pets", SIZES))
    assert (plain.sizes, plain.variant) == (None, "")
    assert made.fingerprint == plain.fingerprint  # neither determines an image
