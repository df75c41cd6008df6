"""RegMean++ on a full-size ViT-B/32 with random weights, beside TSV-M. On request:

.venv/bin/python benchmarks/block_by_block.py [IMAGES ...]    # a task, 8 and 40 by default; 4 GB

Three of the twelve blocks (BLOCKS=12: all), eight tasks, one thread, all in memory. CPU seconds, of
all threads together, are less disturbed by what else runs. Times are linear in the number of
images: two numbers give any other. TSV-M runs before every measurement.
"""

import os
import sys
import time

import open_clip
import torch

from tsv_bench import methods
from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.models import Backbone
from tsv_bench.provenance import peak_memory
from tsv_bench.task_vectors.streaming import stream

BLOCKS = int(os.environ.get("BLOCKS", "3"))
TASKS = [f"task{number}" for number in range(8)]
ARCHITECTURE = "ViT-B-32-quickgelu"


def backbone():
    settings = open_clip.get_model_config(ARCHITECTURE)
    settings["vision_cfg"]["layers"] = BLOCKS
    settings["text_cfg"]["layers"] = 1  # it is thrown away
    torch.manual_seed(0)
    visual = open_clip.CLIP(**settings).visual.eval().requires_grad_(False)
    return Backbone(
        name="b", label="B", image_size=224, visual=visual, fingerprint="", logit_scale=1.0,
        encode_text=lambda prompts: None,
    )  # fmt: skip


def measured(what, run):
    """Print CPU and wall seconds, and the process's peak."""
    wall, cpu = time.monotonic(), time.process_time()
    run()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{what:<28} {cpu:6.1f} CPU s {wall:6.1f} s {peak_memory() / 1e9:5.2f} GB", flush=True)


def merged(served):
    for _ in stream(next(iter(served.values()))):
        pass


def passed(bench):
    """All tasks' images through the network once, block by block."""
    with torch.no_grad():
        for task in bench.tasks:
            for images in bench.images(task).split(32):
                tokens = bench.embed(bench.pretrained, images)
                for number in range(bench.num_blocks):
                    tokens = bench.run_block(bench.pretrained, number, tokens)


def main():
    torch.set_num_threads(1)
    base = backbone()
    vectors = {
        task: {name: 1e-3 * torch.randn(p.shape) for name, p in base.pretrained.items()}
        for task in TASKS
    }
    heads = {task: torch.randn(10, 512) for task in TASKS}
    for number in [int(text) for text in sys.argv[1:]] or [8, 40]:
        images = {
            task: torch.randint(0, 256, (number, 3, 224, 224), dtype=torch.uint8) for task in TASKS
        }
        bench = ImageBench(base, heads, images, None, device="cpu", seed=0)
        measured("TSV-M", lambda: merged(methods.tsv_merge(vectors)))
        served = methods.regmean_plus_plus(vectors, bench=bench)
        measured(f"RegMean++, {number} images", lambda served=served: merged(served))
        measured("one pass of them", lambda bench=bench: passed(bench))


if __name__ == "__main__":
    main()
