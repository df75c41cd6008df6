"""Masked vectors against those that the paper's own code served."""

from functools import partial

import pytest
from golden.compare import GOLDEN
from safetensors.torch import load_file

from tsv_bench import methods
from tsv_bench.task_vectors.task_vector import TaskVector

METHODS = {
    "magnitude_mask_k10": partial(methods.magnitude_mask, density=0.1),
    "tall_mask_l0.4": partial(methods.tall_mask_ta, mask_lambda=0.4),
}


@pytest.mark.parametrize("task", ["task0", "task1"])
@pytest.mark.parametrize("name", METHODS)
def test_served_vector_is_that_of_the_papers_code(name, task):
    pretrained = load_file(GOLDEN / "pretrained.safetensors")
    vectors = {
        t: TaskVector(pretrained, load_file(GOLDEN / f"{t}.safetensors"))
        for t in ("task0", "task1", "task2")
    }
    golden = load_file(GOLDEN / f"out_{name}_{task}.safetensors")
    served = METHODS[name](vectors)[task]
    assert set(served) == set(golden)
    for layer, there in golden.items():
        apart = (served[layer].double() - there.double()).norm()
        assert apart <= 1e-5 * (there.double().norm() or 1), layer
