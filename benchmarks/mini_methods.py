"""Seconds of merging eight fine-tuned mini backbones, method by method. On request:

.venv/bin/pytest benchmarks/mini_methods.py --benchmark-columns=min,median,max
"""

from functools import partial

import pytest
import torch

from tsv_bench import methods
from tsv_bench.models import build_mini

CHOICES = {
    "weight_average": methods.weight_average,
    "task_arithmetic": methods.task_arithmetic,
    "ties": partial(methods.ties, density=0.2),
    "tsv_merge-svd": partial(methods.tsv_merge, polar="svd"),
    "tsv_merge-eigen": partial(methods.tsv_merge, polar="eigen"),
    "tsv_compress": methods.tsv_compress,
}


@pytest.fixture(scope="module")
def task_vectors():
    torch.manual_seed(0)
    shapes = {name: p.shape for name, p in build_mini("mini", 2).visual.named_parameters()}
    return {
        f"task{i}": {name: 1e-2 * torch.randn(shape) for name, shape in shapes.items()}
        for i in range(8)
    }


@pytest.mark.parametrize("name", CHOICES)
def test_serve(benchmark, name, task_vectors):
    def read_all():
        served = CHOICES[name](task_vectors)
        return [list(vector.values()) for vector in {id(v): v for v in served.values()}.values()]

    benchmark.pedantic(read_all, rounds=5, warmup_rounds=1)
