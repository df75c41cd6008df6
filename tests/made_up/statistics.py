"""Made-up inputs of layers and what is kept of them, for methods that see data."""

import torch

from tsv_bench.task_vectors.statistics import Gathered, Statistics


def made_up_inputs(shapes, tasks, num_inputs=60):
    """Inputs of each matrix, along its second axis: task -> layer -> [count, n].

    They are not centred, as activations are not.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(num):
        x = torch.randn(num_inputs, num, dtype=torch.float64, generator=generator)
        return x + 0.5 * x[:1]

    return {
        task: {name: drawn(shape[1]) for name, shape in shapes.items() if len(shape) == 2}
        for task in tasks
    }


def grams_of(inputs, axis=1):
    """The statistics of one task's inputs, in float64: their rounding is not what is compared."""
    gathered = {name: Gathered(len(x), axis) for name, x in inputs.items()}
    return Statistics({name: x.mT @ x for name, x in inputs.items()}, gathered)


def made_up_grams(shapes, tasks, num_inputs=60):
    """The statistics of `made_up_inputs`: task -> layer -> [n, n]."""
    return {task: grams_of(x) for task, x in made_up_inputs(shapes, tasks, num_inputs).items()}


def made_up_means(shapes, tasks):
    """The means of `made_up_inputs`: task -> layer -> [n]."""
    return {
        task: Statistics({name: x.mean(dim=0) for name, x in of_task.items()})
        for task, of_task in made_up_inputs(shapes, tasks).items()
    }


def made_up_fisher(shapes, tasks):
    """Diagonals of Fisher matrices, with zeros among them: task -> layer -> the layer's shape."""
    generator = torch.Generator().manual_seed(1)

    def drawn(shape):
        found = torch.randn(shape, dtype=torch.float64, generator=generator)
        return found.clamp(min=0).square()

    return {task: Statistics({n: drawn(s) for n, s in shapes.items()}) for task in tasks}
