"""A task and a backbone small enough to train in a second."""

import time
import zlib

import numpy as np
import torch
from torch import nn

from tsv_bench.data import Split, Task, load_split
from tsv_bench.models import Backbone

SIZE, DIM = 6, 8
NUM_IMAGES = {"train": 96, "val": 20, "test": 30}


def tints(split, *, num_images, seed):
    """Images with one brighter channel, the class, in noise."""
    rng = np.random.default_rng([zlib.crc32(split.encode()), seed])
    for index in range(num_images[split]):
        image = rng.integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8)
        image[..., index % 3] += 100
        yield image, index % 3


SOURCE = lambda split: tints(split, num_images=NUM_IMAGES, seed=0)  # noqa: E731
# Where a source lies is part of a task's fingerprint, and a test pins that of this one.
SOURCE.__module__, SOURCE.__qualname__ = "made_up_tasks", "<lambda>"


def task(name="tints", source=SOURCE, **new):
    settings = {
        "label": name.title(),
        "class_names": ["red", "green", "blue"],
        "templates": ["a {} tint", "{}"],
        "epochs": 4,
    }
    return Task(name=name, source=source, **{**settings, **new})


def build(folder):
    """Build the data of the task in ``folder``, slowly."""

    def slow(split):
        time.sleep(0.3)  # others who want it come meanwhile
        yield from SOURCE(split)

    slow.__module__, slow.__qualname__ = SOURCE.__module__, SOURCE.__qualname__
    load_split(task(source=slow), "train", folder=folder, image_size=SIZE, to_pixels=to_pixels)


def to_pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def load(split):
    """What ``load_split`` gives for the task, without the caches."""
    images, labels = zip(*tints(split, num_images=NUM_IMAGES, seed=0), strict=True)
    return Split(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(labels))


def encode_text(prompts):
    """Features that depend on the prompt alone."""
    seeds = [torch.Generator().manual_seed(zlib.crc32(prompt.encode())) for prompt in prompts]
    return torch.stack([torch.randn(DIM, generator=seed) for seed in seeds])


def backbone(fingerprint="made up"):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        visual = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 16), nn.GELU(), nn.Linear(16, DIM, bias=False)
        )
    return Backbone(
        name="tiny",
        label="Tiny",
        image_size=SIZE,
        visual=visual.eval().requires_grad_(False),
        fingerprint=fingerprint,
        logit_scale=10.0,
        encode_text=encode_text,
    )
