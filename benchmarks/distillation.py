"""Memory of ProDistill in a block of twenty full-size ViT-L/14 with random weights. On request:

.venv/bin/python benchmarks/distillation.py [per] [steps]    # entry and 2; 8 GB, minutes a step

All that a Run holds then is there: the network of 24 blocks, 64 images of each task, both streams
of their tokens, the first block of all tasks with its coefficients and Adam's moments. Task vectors
are drawn when they are read, as a Run reads them from disk. It ends after so many of Adam's steps,
which are alike.
"""

import sys
import time
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch

from tsv_bench import methods
from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.benchmark.given.unfinished import Unfinished
from tsv_bench.cli.launch import keep_freed_memory
from tsv_bench.models import Backbone
from tsv_bench.provenance import peak_memory
from tsv_bench.task_vectors.lazy import LazyMapping

TASKS = [f"task{number:02}" for number in range(20)]
IMAGES = 64
ARCHITECTURE = "ViT-L-14-quickgelu"


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
    """A bench that ends the work after some steps."""

    steps_left = 0

    def run_block(self, weights, number, tokens):
        found = super().run_block(weights, number, tokens)
        if found.requires_grad:
            if self.steps_left == 0:
                raise Enough
            self.steps_left -= 1
            now = time.monotonic()
            print(f"a step begins, peak {peak_memory() / 1e9:.2f} GB, {now - self.begun:.0f} s")
        return found


def main():
    per = sys.argv[1] if len(sys.argv) > 1 else "entry"
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
    heads = {task: torch.randn(10, 768) for task in TASKS}
    folder = TemporaryDirectory()
    kept = Unfinished(Path(folder.name) / "kept", "benchmark")
    bench = FewSteps(base, heads, images, None, device="cpu", seed=0, unfinished=kept)
    bench.steps_left = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    bench.begun = time.monotonic()
    print(f"before: peak {peak_memory() / 1e9:.2f} GB")
    vectors = {task: Drawn(task, shapes) for task in TASKS}
    served = methods.pro_distill(vectors, bench=bench, per=per)
    try:
        served[TASKS[0]]["transformer.resblocks.0.mlp.c_fc.weight"]
    except Enough:
        pass
    print(f"{len(TASKS)} x {ARCHITECTURE}, per={per}: peak {peak_memory() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
