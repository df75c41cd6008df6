"""A small CLIP of open_clip, two tasks with task vectors, heads and images, and a bench of them."""

import torch
from made_up.backbones import SMALL, clip
from safetensors.torch import save_file

from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.data import Split
from tsv_bench.models import load_clip

TASKS, CLASSES, SIZE, DIM = ["a", "b"], 5, 32, 24


class SmallSuite:
    """``images``: of each task, in the bench and in ``splits``."""

    def __init__(self, folder, images=6, scale=0.3):
        save_file(clip().state_dict(), folder / "clip.safetensors")
        self.backbone = load_clip(
            name="s", label="S", architecture=SMALL, weights=str(folder / "clip.safetensors")
        )
        drawn = torch.Generator().manual_seed(0)
        self.vectors = {
            task: {
                name: scale * p.std() * torch.randn(p.shape, generator=drawn) if p.ndim else 0 * p
                for name, p in self.backbone.pretrained.items()
            }
            for task in TASKS
        }
        self.heads = {task: torch.randn(CLASSES, DIM, generator=drawn) for task in TASKS}
        shape = (images, 3, SIZE, SIZE)
        self.splits = {
            task: Split(
                torch.randint(0, 256, shape, dtype=torch.uint8, generator=drawn),
                torch.randint(0, CLASSES, (images,), generator=drawn),
            )
            for task in TASKS
        }

    @property
    def bench(self):
        images = {task: split.images for task, split in self.splits.items()}
        return ImageBench(self.backbone, self.heads, images, None, device="cpu", seed=0)
