"""A bench whose network is one made-up function of all layers, in float64."""

import zlib

import torch
import torch.nn.functional as F

from tsv_bench.methods.bench import Bench


def _random(what):
    return torch.Generator().manual_seed(zlib.crc32(what.encode()))


class PixelBench(Bench):
    """Features are tanh(x m^T) of an image's pixels x, where m is linear in every weight."""

    device, num_blocks = "cpu", 1

    def __init__(self, shapes, tasks, *, num_images=24, classes=3, dim=6, seed=0):
        self.tasks, self.seed, self.dim = list(tasks), seed, dim
        self._num_images, self._classes = num_images, classes

        def drawn(what, *size):
            return torch.randn(size, dtype=torch.float64, generator=_random(what))

        self.pretrained = {name: 0.1 * drawn(name, *shape) for name, shape in shapes.items()}
        self._maps = {
            name: drawn(f"map {name}", dim * 12, weight.numel()) / weight.numel() ** 0.5
            for name, weight in self.pretrained.items()
        }
        self._heads = {task: 5 * F.normalize(drawn(f"head {task}", classes, dim)) for task in tasks}
        self.forward_passes = self.backward_passes = 0

    def images(self, task):
        size = (self._num_images, 3, 2, 2)
        return torch.randint(0, 256, size, dtype=torch.uint8, generator=_random(f"images {task}"))

    def head(self, task):
        return self._heads[task]

    def features(self, weights, images):
        self.forward_passes += len(images)
        if torch.is_grad_enabled() and any(w.requires_grad for w in weights.values()):
            self.backward_passes += len(images)
        m = sum(self._maps[name] @ weights[name].double().flatten() for name in self._maps)
        x = images.double().flatten(1) / 128 - 1
        return (x @ m.reshape(self.dim, 12).mT).tanh()

    def logits(self, task, features):
        return F.normalize(features, dim=-1) @ self._heads[task].mT
