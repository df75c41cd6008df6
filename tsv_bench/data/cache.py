"""The cache of data sets on disk: drawn once with `datasets`, decoded once to pixels.

    <folder>/<task>-<fingerprint>/            a `datasets` DatasetDict with train, val and test
    <folder>/<task>-<fingerprint>/pixels-30/  each split's images as uint8 [images, 3, 30, 30]

Data from the hub have no DatasetDict: their files lie on disk already. Everything is written under
a temporary name and renamed when it is whole. If two processes want the same split, the second
waits for the first.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from PIL import Image
from torch import Tensor

from tsv_bench import bars
from tsv_bench.data.images import decode
from tsv_bench.data.pixels import Split, Undecoded, pixel_damage, read_pixels, write_pixels
from tsv_bench.data.task import SPLITS, Task
from tsv_bench.files import check_room, leased, read_small, replace_atomically, sha256
from tsv_bench.files.atomic import sweep

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
DRAWN_BYTES = 20_000_000  # of a drawn task, rounded up: its data set and its decoded images

# Splits that this process has opened: a comparison of seven methods opens each once.
_opened: dict[tuple, Split] = {}


def load_split(
    task: Task,
    split: str,
    *,
    folder: Path,
    image_size: int,
    to_pixels: Callable[[Image.Image], Tensor],
    geometry: str = "",
) -> Split:
    """Return one split of a task, and build or decode it first if the cache lacks it.

    ``to_pixels`` is the backbone's: it makes an image uint8 [3, image_size, image_size]. Another
    ``geometry`` makes other pixels of that size.
    A damaged cache is built again with a warning. Raises ValueError if the split has another number
    of images than the task says, OSError if its data cannot be read or the disk has no room.
    """
    assert split in SPLITS, split
    path = pixel_path(task, split, folder, image_size, geometry)
    home = path.parent.parent
    key = (path.resolve(), image_size)
    if key not in _opened:
        num_classes = len(task.class_names)
        if pixel_damage(path, num_classes):
            with leased(home):
                # No other process made it meanwhile.
                if problem := pixel_damage(path, num_classes):
                    if path.exists():
                        log.warning(
                            f"the decoded images of {task.name} at {path} are damaged ({problem}); "
                            f"decoding them again"
                        )
                    decode_split(task, path, image_size, to_pixels)
        found = read_pixels(path)
        if task.sizes and len(found) != task.sizes[split]:
            raise ValueError(
                f"task {task.name!r} has {len(found)} {split} images, {task.sizes[split]} expected."
            )
        _opened[key] = found
    return _opened[key]


def pixel_path(task: Task, split: str, folder: Path, image_size: int, geometry: str = "") -> Path:
    """Return the path of a split's labels; its images lie beside it, with the suffix .npy."""
    home = folder / f"{task.name}-{task.fingerprint}"
    kind = "-".join(filter(None, ("pixels", str(image_size), geometry)))
    return home / kind / f"{split}.npz"


def bytes_to_write(
    task: Task, splits: Iterable[str], *, folder: Path, image_size: int, geometry: str = ""
) -> int:
    """Return how many bytes `load_split` will write for those of these splits that are missing."""
    new = [s for s in splits if not pixel_path(task, s, folder, image_size, geometry).exists()]
    if not in_files(task):
        return DRAWN_BYTES if new else 0
    return sum(task.source.num_images(split) * bytes_per_image(image_size) for split in new)


def check_source(
    task: Task, splits: Iterable[str], *, folder: Path, image_size: int, geometry: str = ""
) -> None:
    """Check the number, classes and labels of images that `load_split` will decode.

    No image is decoded, and splits that are decoded already are skipped. Raises ValueError if
    something differs from what the task says, or if packages with its pictures are not installed,
    OSError if files are missing or damaged.
    """
    new = [s for s in splits if not pixel_path(task, s, folder, image_size, geometry).exists()]
    if not new:
        return
    if in_files(task):
        task.source.check(new)
    elif check := getattr(getattr(task.source, "func", task.source), "check", None):
        check()


def bytes_per_image(image_size: int) -> int:
    """Return the bytes of a decoded image and its label."""
    return 3 * image_size**2 + 8


def in_files(task: Task) -> bool:
    """Return whether the source reads images from files, as HubData does, and draws none."""
    return hasattr(task.source, "undecoded")


def decode_split(
    task: Task, path: Path, image_size: int, to_pixels: Callable[[Image.Image], Tensor]
) -> None:
    """Decode a split's images into the cache at ``path``, while the caller has its lease.

    Raises OSError before it decodes anything if the disk has no room.
    """
    split, source = path.stem, task.source
    sweep(path.parent)
    transform = to_pixels
    if in_files(task):
        num_images = source.num_images(split)
        try:
            check_room(path.parent, num_images * bytes_per_image(image_size), "paths.data=")
        except OSError as error:
            raise OSError(
                f"no room for the {num_images} decoded {split} images of {task.name}: {error} "
                f"paths.data= chooses the folder."
            ) from error
        images = source.undecoded(split)
        if source.transpose:
            # After the geometry, as the reference does: the other way round a few bits differ.
            def transform(image: Image.Image) -> Tensor:
                return to_pixels(image).transpose(1, 2)
    else:
        dataset = open_dataset(task, path.parent.parent)[split]
        num_images, images = len(dataset), undecoded(dataset)
    write_pixels(
        path,
        images,
        transform,
        num_images=num_images,
        image_size=image_size,
        title=f"{task.label}: decoding {split} images",
    )


def undecoded(dataset) -> Iterator[Undecoded]:
    """Yield the images of a drawn split."""
    import datasets

    for index, row in enumerate(dataset.cast_column("image", datasets.Image(decode=False))):
        yield Undecoded(index, row["label"], partial(decode, row["image"]["bytes"]))


def open_dataset(task: Task, home: Path):
    """Return the task's DatasetDict at ``home``, and build it first if it is missing or damaged.

    The caller has its lease.
    """
    import datasets  # takes a second, and decoded pixels need none of it

    datasets.disable_progress_bars()
    sweep(home.parent)
    if not home.exists():
        build_dataset(task, home)
    elif problem := damage(home):
        log.warning(f"the data cache of {task.name} at {home} is damaged ({problem}); rebuilding")
        shutil.rmtree(home)
        build_dataset(task, home)
    return datasets.load_from_disk(str(home))


def damage(home: Path) -> str | None:
    """Return what is wrong with a data set on disk, or None if every file is as it was written."""
    try:
        manifest = json.loads(read_small(home / MANIFEST))
        for name, digest in manifest.items():
            if sha256(home / name) != digest:
                return f"{name} has other bytes than were written"
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def build_dataset(task: Task, home: Path) -> None:
    """Collect every split from the task's source and write all as a `datasets` DatasetDict.

    Raises ValueError if the source yields no image of a split.
    """
    import datasets

    log.info(f"building the data of {task.name}")
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=list(task.class_names))
    )
    splits = {}
    for split in SPLITS:
        bar = bars.bar(task.source(split), desc=f"{task.label}: {split} images", leave=False)
        pairs = list(bar)
        if not pairs:
            raise ValueError(f"the source of {task.name} yields no {split} images.")
        images = [i if isinstance(i, Image.Image) else Image.fromarray(i) for i, _ in pairs]
        columns = {"image": images, "label": [label for _, label in pairs]}
        splits[split] = datasets.Dataset.from_dict(columns, features=features)

    def write(building: Path) -> None:
        datasets.DatasetDict(splits).save_to_disk(str(building))
        files = sorted(path for path in building.rglob("*") if path.is_file())
        manifest = {str(path.relative_to(building)): sha256(path) for path in files}
        (building / MANIFEST).write_text(json.dumps(manifest, indent=1))

    replace_atomically(home, write)
