"""What gathering statistics of images takes. On request:

.venv/bin/python benchmarks/gathering.py mini                # seconds: 8 tasks x 256 images
.venv/bin/python benchmarks/gathering.py vit_l14 [IMAGES]    # peak memory of one task after another

mini is the embedded backbone and the training images of the embedded suite; its pretrained weights
stand for every task's, which take as long. vit_l14 has random weights and images, two tasks: of
twenty no more than one is in memory. Figures are of this process.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch

from tsv_bench.cli.config import objects
from tsv_bench.cli.config.overrides import composed
from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.observation.gather import Observatory, Shown, drawn
from tsv_bench.provenance import peak_memory

KINDS = ("inputs", "means")


def observe(visual, images, head, kinds):
    """Gather statistics of each task's images; return the seconds of each kind of pass."""
    with TemporaryDirectory() as folder:
        observatory = Observatory(visual, Path(folder), "cpu")
        started = time.monotonic()
        for task, of_task in images.items():
            about = {"checkpoint": task, "seed": 0}
            observed = Shown(
                task=task, state=visual.state_dict(), head=head, images=of_task, about=about
            )
            observatory.statistics(observed, kinds, "sampled")
        return time.monotonic() - started


def mini():
    """Print the seconds for the embedded suite."""
    config = composed("bench", [])
    backbone = objects.make_backbone(config)
    load = objects.make_loader(config, backbone)
    images = {}
    for name, task in make_tasks(config.suite.tasks).items():
        split = load(task, "train")
        images[name] = split.images[drawn(split, 256, 0, name)]
    head = torch.randn(10, backbone.visual.proj.shape[1])
    for kinds in (KINDS, ("fisher",)):
        seconds = observe(backbone.visual, images, head, kinds)
        print(f"{' and '.join(kinds)}: {len(images)} tasks x 256 images in {seconds:.1f} s")


def vit_l14(num_images):
    """Print the peak memory at ViT-L/14."""
    settings = open_clip.get_model_config("ViT-L-14-quickgelu")
    torch.manual_seed(0)
    visual = open_clip.CLIP(**settings).visual.eval().requires_grad_(False)
    pixels = torch.randint(0, 256, (num_images, 3, 224, 224), dtype=torch.uint8)
    seconds = observe(visual, {"a": pixels, "b": pixels}, None, KINDS)
    print(f"ViT-L/14, two tasks x {num_images} images: {seconds:.0f} s, peak memory "
          f"{peak_memory() / 1e9:.2f} GB")  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(2)
    mini() if sys.argv[1:2] == ["mini"] else vit_l14(int(sys.argv[2]) if sys.argv[2:] else 16)
