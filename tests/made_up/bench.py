"""A bench on the layers of `random_vectors`: one product with each matrix, no blocks."""

import copy

import torch
from made_up.vectors import SHAPES

from tsv_bench.observation.linear_inputs import LinearInputs
from tsv_bench.task_vectors.statistics import Statistics

NUM_IMAGES, NUM_TOKENS, WIDTH, NUM_CLASSES = 12, 5, 40, 3
MATRICES = ["in_proj_weight", "proj", "c_proj.weight", "text_projection"]


class MadeUpBench:
    """As `Bench`; weights are in float64. Images are tokens already."""

    device, seed, num_blocks = "cpu", 0, 0

    def __init__(self, tasks):
        generator = torch.Generator().manual_seed(2)

        def drawn(*shape):
            return torch.randn(shape, dtype=torch.float64, generator=generator)

        self.tasks = list(tasks)
        self.pretrained = {name: drawn(*shape) for name, shape in SHAPES.items()}
        self._images = {task: drawn(NUM_IMAGES, NUM_TOKENS, WIDTH) + 0.5 for task in tasks}
        self._labels = {
            task: torch.randint(NUM_CLASSES, (NUM_IMAGES,), generator=generator) for task in tasks
        }
        width = sum(SHAPES[name][0] for name in MATRICES)
        self._heads = {task: drawn(NUM_CLASSES, width) for task in tasks}

    def on(self, device):
        """The same bench on another device."""
        moved = copy.copy(self)
        moved.device = device
        for name in ("pretrained", "_images", "_labels", "_heads"):
            setattr(moved, name, {k: x.to(device) for k, x in getattr(self, name).items()})
        return moved

    def images(self, task):
        return self._images[task]

    def labels(self, task):
        return self._labels[task]

    def head(self, task):
        return self._heads[task]

    def embed(self, weights, images):
        return images.clone()

    def run_block(self, weights, number, tokens):
        raise AssertionError("it has no blocks")

    def read_out(self, weights, tokens):
        made = [tokens[..., : weights[name].shape[1]] @ weights[name].mT for name in MATRICES]
        return torch.cat(made, dim=-1).mean(dim=1)

    def features(self, weights, images):
        return self.read_out(weights, images)

    def logits(self, task, features):
        return torch.nn.functional.normalize(features, dim=-1) @ self._heads[task].T

    def linear_inputs(self, weights, run):
        with torch.no_grad(), LinearInputs(weights, ("inputs",)) as inputs:
            run()
        layers = {name: inputs.statistics("inputs", name) for name in inputs.gathered}
        return Statistics(layers, inputs.gathered)

    def kept(self, name):
        return None

    def keep(self, name, tensors):
        pass

    def note(self, name, content):
        pass

    def report(self, name, step, vector):
        pass

    def num_steps(self, task, epochs=None, batch_size=None):
        return 6 if epochs is None else 2 * epochs

    def loss(self, task, weights):
        logits = self.logits(task, self.features(weights, self.images(task)))
        return torch.nn.functional.cross_entropy(logits, self.labels(task))

    def fine_tune(self, task, weights, *, steps, first=0, name, constant=False, rate=0.5):
        """Plain gradient descent, a step on all images."""
        weights = {n: w.detach().clone().requires_grad_() for n, w in weights.items()}
        for _ in range(steps):
            loss = self.loss(task, weights)
            gradients = torch.autograd.grad(loss, [*weights.values()], allow_unused=True)
            with torch.no_grad():
                for weight, gradient in zip(weights.values(), gradients, strict=True):
                    if gradient is not None:
                        weight -= rate * gradient
        return {n: w.detach() for n, w in weights.items()}
