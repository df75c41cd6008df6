"""Random task vectors for the tests of methods."""

import torch

# float64 everywhere: SVD rounding is ~1e-14 here, so 1e-10 separates a wrong algorithm from a
# rounded right one with room on both sides.
close = {"rtol": 1e-10, "atol": 1e-10}


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def random_vectors(num_tasks, dtype=torch.float64):
    """Of a small backbone: matrices of three forms, what is averaged, a frozen part."""
    return {
        f"task{t}": {
            "in_proj_weight": randn(30, 10).to(dtype),
            "proj": randn(12, 12).to(dtype),
            "c_proj.weight": randn(10, 40).to(dtype),
            "text_projection": randn(6, 6).to(dtype),
            "conv1.weight": randn(4, 3, 2, 2).to(dtype),
            "bias": randn(10).to(dtype),
            "logit_scale": randn().to(dtype),
            "frozen": torch.zeros(5, 4, dtype=dtype),
        }
        for t in range(num_tasks)
    }


def read(served):
    """Every layer of every task; what several tasks share is computed once."""
    found = {}
    for vector in served.values():
        if id(vector) not in found:
            found[id(vector)] = dict(vector.items())
    return {task: dict(found[id(vector)]) for task, vector in served.items()}
