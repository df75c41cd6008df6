"""The threshold of TIES over blocks is that of the whole vector, to the bit."""

import math

import pytest
import torch

from tsv_bench import methods
from tsv_bench.task_vectors import lazy
from tsv_bench.task_vectors.order_statistics import trim_threshold, trim_thresholds
from tsv_bench.task_vectors.task_vector import TaskVector

DENSITIES = [1e-12, 1e-4, 0.01, 0.07, 0.2, 0.5, 0.999, 1.0, 1]
EMPTY = {"no rows": (0, 4), "no columns": (5, 0)}
SHAPES = EMPTY | {"matrix": (37, 11), "conv": (5, 3, 2, 2), "bias": (29,), "scale": ()}
TINY = {torch.float32: 1e-45, torch.float64: 5e-324}  # the smallest denormal numbers


def normal(shape, dtype):
    return torch.randn(shape, dtype=dtype)


ENTRIES = {
    "normal": normal,
    "ties": lambda shape, dtype: torch.randint(-3, 4, shape).to(dtype) / 7,
    "two values": lambda shape, dtype: torch.randint(0, 2, shape).to(dtype) * 2 - 3,
    "all equal": lambda shape, dtype: torch.full(shape, -0.1, dtype=dtype),
    "all zero": lambda shape, dtype: torch.zeros(shape, dtype=dtype),
    "negative zero": lambda shape, dtype: -torch.zeros(shape, dtype=dtype),
    "mostly zero": lambda shape, dtype: normal(shape, dtype).relu() * (normal(shape, dtype) > 1),
    "denormal": lambda shape, dtype: torch.randint(-9, 9, shape).to(dtype) * TINY[dtype],
    "all scales": lambda shape, dtype: normal(shape, dtype) * 10 ** (9 * normal(shape, dtype)),
    "next to each other": lambda shape, dtype: (
        1 + torch.randint(0, 9, shape).to(dtype) * torch.finfo(dtype).eps
    ),
    "largest": lambda shape, dtype: normal(shape, dtype).sign() * torch.finfo(dtype).max,
}


def expected(vector, density):
    """By sorting all magnitudes."""
    magnitudes = torch.cat([delta.double().abs().flatten() for delta in vector.values()])
    num_kept = max(1, math.ceil(round(len(magnitudes) * density, 6)))
    threshold = magnitudes.sort(descending=True).values[num_kept - 1]
    assert threshold == magnitudes.kthvalue(len(magnitudes) - num_kept + 1).values
    return float(threshold)


def subtracted(vector):
    return TaskVector({name: torch.zeros_like(delta) for name, delta in vector.items()}, vector)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ENTRIES)
def test_threshold_is_that_of_the_sorted_vector(kind, dtype, monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK", 64)
    vector = {name: ENTRIES[kind](shape, dtype) for name, shape in SHAPES.items()}
    for density in DENSITIES:
        threshold = expected(vector, density)
        assert trim_threshold(subtracted(vector), density) == threshold
        assert trim_threshold(vector, density) == threshold


@pytest.mark.parametrize("density", DENSITIES)
def test_threshold_of_mixed_types_is_exact(density):
    types = dict.fromkeys(SHAPES, torch.float32) | {"conv": torch.float64, "bias": torch.float16}
    vector = {name: normal(shape, types[name]) for name, shape in SHAPES.items()}
    assert trim_threshold(subtracted(vector), density) == expected(vector, density)


def test_every_task_has_its_own_threshold():
    vectors = [{"w": (t + 1) * torch.arange(10.0)} for t in range(7)]
    assert trim_thresholds([subtracted(vector) for vector in vectors], 0.3) == [
        7 * (t + 1) for t in range(7)
    ]


@pytest.mark.parametrize("density", [1e-12, 0.2, 1])
def test_vector_without_entries_is_served_as_it_is(density):
    vector = {name: torch.zeros(shape) for name, shape in EMPTY.items()}
    served = methods.ties({"a": vector}, density=density)["a"]
    assert {name: delta.shape for name, delta in served.items()} == EMPTY
    assert methods.ties({"a": {}}, density=density)["a"] == {}


def test_a_tiny_share_keeps_the_largest_entry():
    vector = {"w": torch.tensor([0.5, -3.0, 2.0])}
    assert methods.ties({"a": vector}, density=1e-12)["a"]["w"].tolist() == [0, -3, 0]


def test_finding_the_threshold_reads_only_blocks(monkeypatch):
    """Twice in float32: no pass to find out the type, no layer as a whole."""
    monkeypatch.setattr(lazy, "BLOCK", 16)
    whole, rows = [], []

    class Reads(TaskVector):
        def __getitem__(self, name):
            whole.append(name)
            return super().__getitem__(name)

        def rows(self, name, start, stop):
            rows.append((start, stop))
            return super().rows(name, start, stop)

    # The type checker of the tests looks at a mapping's first item: it is given one of its own.
    vector = {"first": torch.randn(2), "w": torch.randn(8, 8)}
    trim_threshold(Reads({name: torch.zeros_like(d) for name, d in vector.items()}, vector), 0.2)
    assert rows == [(0, 2), (2, 4), (4, 6), (6, 8)] * 2
    assert "w" not in whole
