"""How much goes by matrices: counted by names and shapes alone."""

from functools import partial

import pytest
import torch

from tsv_bench import methods
from tsv_bench.merging.as_matrices import AsMatrices
from tsv_bench.merging.told.extent import extent_of
from tsv_bench.task_vectors.lazy import LazyMapping

SHAPES = {
    "layers.0.q_proj.weight": (8, 8),
    "lm_head.weight": (20, 8),
    "experts": (4, 8, 6),
    "conv": (5, 4, 3, 2),
    "norm": (8,),
    "scale": (),
}


class Unread(LazyMapping):
    """Layers that must not be read."""

    names = SHAPES.keys()

    def shape(self, name):
        return torch.Size({**SHAPES, "ids": (1, 7)}[name])

    def dtype(self, name):
        return torch.float32

    def rows(self, name, start, stop):
        raise AssertionError("read")


class Base(Unread):
    names = (*SHAPES, "ids")


def extent(method, **options):
    method = AsMatrices(method, **options) if options else method
    return extent_of(method, Base(), {"a": Unread(), "b": Unread()})


@pytest.mark.parametrize(
    ("options", "matrices"),
    [
        ({}, (1, 64)),
        ({"stacked": True, "kernels": False}, (2, 64 + 192)),
        ({"stacked": True, "kernels": True}, (3, 64 + 192 + 120)),
    ],
)
@pytest.mark.parametrize("method", ["tsv_merge", "iso_c", "dc_merge", "svc"])
def test_matrices_are_counted_with_their_parameters(method, options, matrices):
    found = extent(getattr(methods, method), **options)
    assert found.by_matrices == matrices and found.kept == (1, 7)
    assert found.num_parameters == 64 + 160 + 192 + 120 + 8 + 1


def test_the_line_says_what_the_rest_is():
    line = extent(partial(methods.tsv_merge, exclude=[])).line()
    assert line == (
        "41.1% of 545 parameters are merged by matrices, 58.9% entry by entry: 35.2% 3-D layers, "
        "22.0% 4-D layers, 1.5% vectors, 0.2% scalars."
    )


def test_a_method_without_matrices_says_nothing():
    found = extent(partial(methods.ties, density=0.5))
    assert found.line() == "" and found.by_matrices == (0, 0)
    assert "entry by entry: 2-D layers" in found.table() and "kept as pretrained" in found.table()
