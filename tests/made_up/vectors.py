"""Random task vectors for the tests of methods."""

import torch

# float64 everywhere: SVD rounding is ~1e-14 here, so 1e-10 separates a wrong algorithm from a
# rounded right one with room on both sides.
close = {"rtol": 1e-10, "atol": 1e-10}


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


# Of a small backbone: matrices of three forms, what is averaged, a frozen part.
SHAPES = {
    "in_proj_weight": (30, 10),
    "proj": (12, 12),
    "c_proj.weight": (10, 40),
    "text_projection": (6, 6),
    "conv1.weight": (4, 3, 2, 2),
    "bias": (10,),
    "logit_scale": (),
    "frozen": (5, 4),
}


def random_vectors(num_tasks, dtype=torch.float64):
    """Task vectors of that backbone."""

    def delta(name, shape):
        return torch.zeros(shape, dtype=dtype) if name == "frozen" else randn(*shape).to(dtype)

    return {
        f"task{t}": {name: delta(name, shape) for name, shape in SHAPES.items()}
        for t in range(num_tasks)
    }


def read(served):
    """Every layer of every task; what several tasks share is computed once."""
    found = {}
    for vector in served.values():
        if id(vector) not in found:
            found[id(vector)] = dict(vector.items())
    return {task: dict(found[id(vector)]) for task, vector in served.items()}
