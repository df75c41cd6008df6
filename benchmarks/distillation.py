"""Memory of ProDistill in a block of twenty full-size ViT-L/14 with random weights. On request:

.venv/bin/python benchmarks/distillation.py [STEPS] [PER]    # 2 and entry; 8 GB, minutes

All that a Run holds in a block is there: the network of 24 blocks, 64 images of each task, the
tokens of both streams, one block of all tasks with what Adam keeps; merged blocks lie on disk. Task
vectors are drawn when they are read, as a Run reads them from disk. It ends after so many of Adam's
steps, which are alike. SIZE=ViT-B-32-quickgelu takes another network, THREADS=2 as
many threads.
"""

import os
import sys
import time
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch

from tsv_bench import methods
from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.cli.work.machine import keep_freed_memory
from tsv_bench.models import Backbone
from tsv_bench.provenance import peak_memory
from tsv_bench.state_dicts.steps.unfinished import Unfinished
from tsv_bench.task_vectors.lazy import LazyMapping

TASKS = [f"task{number:02}" for number in range(20)]
IMAGES, BATCH = 64, 128
ARCHITECTURE = os.environ.get("SIZE", "ViT-L-14-quickgelu")
FIRST = "transformer.resblocks.0."


class Drawn(LazyMapping):
    """A task vector whose layers are drawn on access."""

    reads_rows = False

    def __init__(self, task, shapes):
        self._task, self._shapes = task, shapes

    @property
    def names(self):
        return self._shapes

    def shape(self, name):
        return self._shapes[name]

    def dtype(self, name):
        return torch.float32

    def rows(self, name, start, stop):
        drawn = torch.Generator().manual_seed(zlib.crc32(f"{self._task} {name}".encode()))
        return (1e-3 * torch.randn(self._shapes[name], generator=drawn))[start:stop]


class Enough(Exception):
    pass


class FewSteps(ImageBench):
    """A bench that ends the work when so many images have passed with a gradient."""

    images_left, begun = 0, 0.0

    def run_block(self, weights, number, tokens):
        if any(weight.requires_grad for weight in weights.values()):
            if self.images_left % BATCH == 0:
                left, seconds = self.images_left // BATCH, time.monotonic() - self.begun
                peak = f"peak {peak_memory() / 1e9:.2f} GB"
                print(f"{left} steps to go, {seconds:.0f} s, {peak}", flush=True)
            if self.images_left == 0:
                raise Enough
            self.images_left -= len(tokens)
        return super().run_block(weights, number, tokens)


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    per = sys.argv[2] if len(sys.argv) > 2 else "entry"
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    keep_freed_memory()
    torch.manual_seed(0)
    settings = open_clip.get_model_config(ARCHITECTURE)
    settings["text_cfg"]["layers"] = 1  # it is thrown away
    visual = open_clip.CLIP(**settings).visual.eval().requires_grad_(False)
    base = Backbone(
        name="b", label="B", image_size=224, visual=visual, fingerprint="", logit_scale=1.0,
        encode_text=lambda prompts: None,
    )  # fmt: skip
    shapes = {name: p.shape for name, p in base.pretrained.items()}
    images = {
        task: torch.randint(0, 256, (IMAGES, 3, 224, 224), dtype=torch.uint8) for task in TASKS
    }
    folder = TemporaryDirectory()
    kept = Unfinished(Path(folder.name) / "kept", "benchmark")
    bench = FewSteps(base, {}, images, None, device="cpu", seed=0, unfinished=kept)
    bench.images_left, bench.begun = steps * BATCH, time.monotonic()
    print(f"before: peak {peak_memory() / 1e9:.2f} GB", flush=True)
    served = methods.pro_distill(
        {task: Drawn(task, shapes) for task in TASKS}, bench=bench, per=per, batch_size=BATCH
    )
    try:
        served[TASKS[0]][f"{FIRST}mlp.c_fc.weight"]
    except Enough:
        print(f"20 x {ARCHITECTURE}, per={per}: peak {peak_memory() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
