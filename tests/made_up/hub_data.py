"""Data sets of a few small images, in the forms that those of the hub have."""

import io
import tarfile

import datasets
import numpy as np
from PIL import Image

from tsv_bench.data.hub import HubData

SIZE = 6
NAMES = ("ant", "bee cell", "cat/dog")


def image(row, split="train", gray=False):
    """A picture that tells its split and row, brighter towards one corner."""
    ramp = np.add.outer(np.arange(SIZE), 3 * np.arange(SIZE)).astype(np.uint8)
    tint = np.array([row, len(split), 100], dtype=np.uint8)
    return Image.fromarray(ramp + row if gray else ramp[..., None] + tint)


def encoded(row, split="train", kind="PNG", **settings):
    """The bytes of that picture's file."""
    file = io.BytesIO()
    image(row, split, **settings).save(file, kind)
    return file.getvalue()


def label(row):
    return row * 7 % 3


def write_parquet(
    folder,
    sizes,
    *,
    shards=2,
    feature=None,
    columns=("image", "label"),
    pattern="data/{split}-{shard:05d}.parquet",
    labels=label,
    content=encoded,
    more=None,
):
    """Parquet files of each split as the hub has them; ``labels`` and ``content`` are of a row."""
    feature = datasets.ClassLabel(names=list(NAMES)) if feature is None else feature
    features = {columns[0]: datasets.Image(), columns[1]: feature}
    datasets.disable_progress_bars()
    for split, num_images in sizes.items():
        rows = range(num_images)
        table = {
            columns[0]: [{"bytes": content(row, split), "path": f"{row}.png"} for row in rows],
            columns[1]: [labels(row) for row in rows],
        }
        for name, (kind, values) in (more or {}).items():
            features[name], table[name] = kind, [values(row) for row in rows]
        data = datasets.Dataset.from_dict(table, features=datasets.Features(features))
        for shard in range(shards):
            path = folder / pattern.format(split=split, shard=shard)
            path.parent.mkdir(parents=True, exist_ok=True)
            data.shard(shards, shard, contiguous=True).to_parquet(path)
    return folder


def write_folders(folder, sizes, names=NAMES, labels=label):
    """Images in folders named by class: <split>/<class>/<row>.png."""
    for split, num_images in sizes.items():
        for row in range(num_images):
            path = folder / split / names[labels(row)].replace("/", "_") / f"{row:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(row, split))
    return folder


def jpeg(row, split):
    return encoded(row, split, "JPEG")


def write_tars(folder, sizes, shards=2, labels=label, content=jpeg):
    """Webdataset tars: <split>/<shard>.tar with <row>.jpg and <row>.cls."""
    for split, num_images in sizes.items():
        (folder / split).mkdir(parents=True)
        for shard, rows in enumerate(np.array_split(np.arange(num_images), shards)):
            with tarfile.open(folder / split / f"{shard}.tar", "w") as tar:
                for row in map(int, rows):
                    files = {"cls": str(labels(row)).encode(), "jpg": content(row, split)}
                    for suffix, found in files.items():
                        member = tarfile.TarInfo(f"s{row:05d}.{suffix}")
                        member.size = len(found)
                        tar.addfile(member, io.BytesIO(found))
    return folder


def hub_data(folder, in_data_set, **new):
    """A source of such a folder; ``in_data_set``: its sizes by its own names of the splits."""
    settings = {
        "repo": str(folder),
        "splits": {"train": "train", "test": "test"},
        "num_classes": len(NAMES),
        "class_names": NAMES,
        **new,
    }
    if "sizes" not in settings:
        settings["sizes"] = {ours: in_data_set[own] for ours, own in settings["splits"].items()}
    return HubData(**settings)
