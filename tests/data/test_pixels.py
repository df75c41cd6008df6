"""Decoded images: read once, in little memory, and found again as they were written."""

import io
import os
import threading

import made_up.tasks
import numpy as np
import pytest
import torch
from made_up.hub_data import encoded, hub_data, image, write_folders, write_parquet
from torchvision.transforms.v2 import functional

from tsv_bench.data import cache, hub, load_split, pixels
from tsv_bench.data.pixels import Undecoded
from tsv_bench.data.task import SPLITS
from tsv_bench.process.cores import num_cores

SIZES = {"train": 30, "test": 8}
NUM_IMAGES = {"train": 27, "val": 3, "test": 8}


def to_pixels(image, size=4):
    """Return a geometry whose result changes if height and width are exchanged."""
    resized = functional.resize(
        image.convert("RGB"), [size, size], functional.InterpolationMode.BICUBIC
    )
    return functional.pil_to_tensor(resized)


def load(folder, task, split="train", to_pixels=to_pixels):
    """Load a split as a new process does, which has opened nothing yet."""
    cache._opened.clear()
    return load_split(task, split, folder=folder, image_size=4, to_pixels=to_pixels)


@pytest.fixture(autouse=True)
def forgotten():
    cache._opened.clear()
    yield
    cache._opened.clear()


@pytest.fixture
def decoded(monkeypatch):
    """Record every image that is decoded."""
    calls = []
    monkeypatch.setattr(hub, "open_image", lambda *image: calls.append(image) or opened(*image))
    return calls


opened = hub.open_image


def task(folder, name="tints", sizes=NUM_IMAGES, **settings):
    return made_up.tasks.task(name, hub_data(folder, SIZES, **settings), sizes=sizes)


@pytest.mark.parametrize(
    ("write", "transpose"), [(write_parquet, False), (write_folders, False), (write_parquet, True)]
)
def test_images_of_the_hub_are_decoded_in_the_order_of_the_split(tmp_path, write, transpose):
    made = task(write(tmp_path / "data", SIZES), transpose=transpose)
    for split in SPLITS:
        found = load(tmp_path / "cache", made, split)
        images, labels = zip(*made.source(split), strict=True)
        expected = torch.stack([to_pixels(image) for image in images])
        # EMNIST is stored transposed; the reference transposes it after the transform.
        assert torch.equal(found.images, expected.mT if transpose else expected)
        assert not torch.equal(found.images, expected.mT if not transpose else expected)
        assert found.labels.tolist() == list(labels)
    # There is no second copy of data that lie on disk already.
    (home,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert {path.name for path in home.iterdir()} == {"pixels-4"}


def test_only_the_images_of_the_split_are_decoded(tmp_path, decoded):
    made = task(write_parquet(tmp_path / "data", SIZES))
    load(tmp_path / "cache", made, "val")
    assert len(decoded) == 3
    load(tmp_path / "cache", made, "train")
    assert len(decoded) == 30


def test_many_alphas_on_several_validation_sets_decode_no_image_twice(tmp_path, decoded):
    folder = write_parquet(tmp_path / "data", SIZES)
    tasks = [task(folder, f"task{number}") for number in range(3)]
    for process in range(2):
        cache._opened.clear()
        for alpha in range(30):
            for made in tasks:
                found = load_split(made, "val", folder=tmp_path, image_size=4, to_pixels=to_pixels)
                assert len(found.images * alpha) == 3
        assert len(decoded) == 3 * 3, process


def test_the_file_is_that_of_numpy_to_the_bit(tmp_path):
    found = load(tmp_path, made_up.tasks.task(sizes=made_up.tasks.NUM_IMAGES)).images
    saved = io.BytesIO()
    np.save(saved, found.numpy())
    (path,) = tmp_path.rglob("train.npy")
    assert path.read_bytes() == saved.getvalue()


def test_few_images_are_held_at_a_time_however_many_there_are(tmp_path):
    """The number of images that are read ahead of the last written one is bounded."""
    held, most, lock = set(), [0], threading.Lock()

    class Tracked(Undecoded):
        def __del__(self):
            held.discard(self.index)

    def images():
        for index in range(400):
            with lock:
                held.add(index)
                most[0] = max(most[0], len(held))
            yield Tracked(index, 0, lambda index=index: image(index % 100))

    pixels.write_pixels(
        tmp_path / "x.npz", images(), to_pixels, num_images=400, image_size=4, title="x"
    )
    assert most[0] <= pixels.NUM_WAITING * num_cores() + 2
    assert torch.equal(pixels.read_pixels(tmp_path / "x.npz").images[399], to_pixels(image(99)))


def test_images_are_decoded_in_other_threads(tmp_path):
    threads = set()

    def noted(image):
        threads.add(threading.current_thread())
        return to_pixels(image)

    load(tmp_path / "cache", task(write_parquet(tmp_path / "data", SIZES)), to_pixels=noted)
    assert threads and threading.current_thread() not in threads


def test_cache_larger_than_the_memory_can_be_opened(tmp_path):
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shape = (3 * memory // (3 * 224**2), 3, 224, 224)
    with (tmp_path / "big.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        file.truncate(file.tell() + int(np.prod(shape)))  # all holes
    np.savez(tmp_path / "big.npz", labels=np.zeros(1, dtype=np.int64))
    images = pixels.read_pixels(tmp_path / "big.npz").images
    assert images.shape == shape and not images[-1].any()
    images[-1] += 1
    assert images[-1].all()


def nothing_is_left(folder):
    return not [path for path in folder.rglob("*") if path.is_file() and ".lease-" not in path.name]


def test_disk_too_small_is_found_before_anything_is_decoded(tmp_path, decoded, monkeypatch):
    made = task(write_parquet(tmp_path / "data", SIZES))
    usage = (10**9, 10**9, 1000)
    monkeypatch.setattr(
        "shutil.disk_usage",
        lambda _: type("Usage", (), dict(zip(("total", "used", "free"), usage, strict=True))),
    )
    with pytest.raises(OSError, match="no room for the 27 decoded train images of tints: .* free"):
        load(tmp_path / "cache", made)
    assert not decoded and nothing_is_left(tmp_path / "cache")
    load(tmp_path / "cache", made, "val")  # 168 bytes


def test_bytes_to_be_written_are_those_of_splits_that_are_not_there(tmp_path):
    made = task(write_parquet(tmp_path / "data", SIZES))
    where = {"folder": tmp_path / "cache", "image_size": 4}
    assert cache.bytes_to_write(made, SPLITS, **where) == 38 * (3 * 4 * 4 + 8)
    load(tmp_path / "cache", made, "test")
    assert cache.bytes_to_write(made, ["test"], **where) == 0
    assert cache.bytes_to_write(made, SPLITS, **where) == 30 * (3 * 4 * 4 + 8)
    drawn = made_up.tasks.task()
    assert cache.bytes_to_write(drawn, ["val"], **where) == cache.DRAWN_BYTES


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_decoding_leaves_nothing_and_starts_again(tmp_path, error):
    made = task(write_parquet(tmp_path / "data", SIZES))

    def interrupted(image):
        if image.getpixel((0, 0))[0] == 20:
            raise error("stop")
        return to_pixels(image)

    with pytest.raises(error, match="stop"):
        load(tmp_path / "cache", made, to_pixels=interrupted)
    assert nothing_is_left(tmp_path / "cache")
    assert len(load(tmp_path / "cache", made)) == 27


def test_corrupt_image_is_named_while_decoding(tmp_path):
    def cut(row, split):
        content = encoded(row, split)
        return content[: len(content) // 2] if row == 3 else content

    folder = write_parquet(tmp_path / "data", SIZES, content=cut)
    with pytest.raises(OSError, match=r"test-00000\.parquet, row 3 is not an image"):
        load(tmp_path / "cache", task(folder), "test")
    assert nothing_is_left(tmp_path / "cache")


def test_what_a_killed_process_left_is_cleared_aloud(tmp_path, caplog):
    made = task(write_parquet(tmp_path / "data", SIZES))
    left = cache.pixel_path(made, "val", tmp_path / "cache", 4).with_name(".val.npy.0123abcd.tmp")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    load(tmp_path / "cache", made, "val")
    assert not left.exists() and "left it half written" in caplog.text


def test_whole_cache_is_kept_and_read_through_once_in_a_process(tmp_path, decoded, monkeypatch):
    made = task(write_parquet(tmp_path / "data", SIZES))
    before = load(tmp_path, made).images.clone()
    checked, damage = [], cache.pixel_damage
    monkeypatch.setattr(cache, "pixel_damage", lambda *args: checked.append(args) or damage(*args))
    assert torch.equal(load(tmp_path, made).images, before)
    load_split(made, "train", folder=tmp_path, image_size=4, to_pixels=to_pixels)
    assert len(checked) == 1 and len(decoded) == 27


def test_number_of_drawn_images_is_compared_with_the_tasks(tmp_path):
    sizes = {**made_up.tasks.NUM_IMAGES, "val": 21}
    with pytest.raises(ValueError, match="'tints' has 20 val images, 21 expected"):
        load(tmp_path, made_up.tasks.task(sizes=sizes), "val", lambda image: to_pixels(image))
