"""The threshold of TIES over blocks is that of the whole vector, to the bit."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tsv_bench import methods
from tsv_bench.task_vectors import largest_values, lazy
from tsv_bench.task_vectors.lazy import as_lazy
from tsv_bench.task_vectors.order_statistics import (
    LayerStatistics,
    magnitudes,
    order_statistics,
    rank_of,
    trim_threshold,
    trim_thresholds,
)
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


@pytest.fixture(params=["gathered", "counted", "misled", "without a sample"])
def way(request, monkeypatch):
    """How values are found: small vectors are gathered, these are made to count as large."""
    if request.param == "gathered":
        return request.param
    monkeypatch.setattr(largest_values, "FEW", 0)
    monkeypatch.setattr(largest_values, "BINS", 2**12)
    if request.param == "misled":
        bounds = largest_values.first_searches

        def wrong(*args):
            searches = bounds(*args)
            for search in (search for of_task in searches for search in of_task):
                search._begin(1, 2)  # the bits of the two smallest numbers
            return searches

        monkeypatch.setattr(largest_values, "first_searches", wrong)
    if request.param == "without a sample":
        monkeypatch.setattr(largest_values, "sample_parts", lambda *args: [])
    return request.param


def subtracted(vector):
    return TaskVector({name: torch.zeros_like(delta) for name, delta in vector.items()}, vector)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ENTRIES)
def test_threshold_is_that_of_the_sorted_vector(kind, dtype, way, monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK", 256)
    vector = {name: ENTRIES[kind](shape, dtype) for name, shape in SHAPES.items()}
    vectors = [vector, subtracted(vector)]
    shares = DENSITIES[::2] + DENSITIES[1::2]  # in any order, and of all in the same passes
    found = order_statistics(vectors, magnitudes, shares)
    assert found.tolist() == [[expected(vector, share) for share in shares]] * 2
    assert trim_thresholds(vectors, 0.07) == [expected(vector, 0.07)] * 2


@pytest.mark.parametrize("density", DENSITIES)
def test_threshold_of_mixed_types_is_exact(density):
    types = dict.fromkeys(SHAPES, torch.float32) | {"conv": torch.float64, "bias": torch.float16}
    vector = {name: normal(shape, types[name]) for name, shape in SHAPES.items()}
    assert trim_threshold(subtracted(vector), density) == expected(vector, density)


def test_a_share_is_rounded_up_but_not_for_what_its_product_is_off():
    assert 0.07 * 100 > 7 and rank_of(0.07, 100) == 7
    assert rank_of(0.071, 100) == 8 and rank_of(1e-12, 100) == 1


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


@pytest.mark.parametrize("few", [2**22, 0])
def test_finding_thresholds_reads_each_block_once(monkeypatch, few):
    """And before it a sample of each layer. No layer as a whole."""
    monkeypatch.setattr(lazy, "BLOCK", 32)
    monkeypatch.setattr(largest_values, "FEW", few)
    monkeypatch.setattr(largest_values, "SAMPLE", 64)
    monkeypatch.setattr(largest_values, "MARGIN", 0.4)  # of so few entries
    whole, rows = [], []

    class Reads(TaskVector):
        def __getitem__(self, name):
            whole.append(name)
            return super().__getitem__(name)

        def _subtract(self, name, start, stop, out):
            rows.append((start, stop))
            return super()._subtract(name, start, stop, out)

    # The type checker of the tests looks at a mapping's first item: it is given one of its own.
    # All values are near 1, so that every one between two bounds has a bin of its own.
    vector = {"first": 1 + torch.rand(2) / 10, "w": 1 + torch.rand(8, 8) / 10}
    base = {name: torch.zeros_like(delta) for name, delta in vector.items()}
    trim_thresholds([Reads(base, vector), Reads(base, vector)], 0.5)
    of_first, of_w = [(0, 2)], [(0, 2), (2, 4), (4, 6), (6, 8)]
    of_sample = [(0, 1), (1, 2), *of_w] if few == 0 else []
    assert sorted(rows) == sorted(2 * (of_first + of_w + of_sample))
    assert "w" not in whole


def test_layers_have_statistics_of_their_own_found_once():
    vectors = [
        as_lazy({"a": torch.arange(12.0).view(3, 4) * t, "b": torch.ones(2)}) for t in (1, 2)
    ]
    calls = []

    def rule(deltas):
        calls.append(deltas.shape)
        return deltas.abs()

    statistics = LayerStatistics(vectors, rule, lambda entries: [1, entries])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(statistics.of, ["a"] * 8):
            assert found.tolist() == [[11, 0], [22, 0]]
    assert statistics.of("b").tolist() == [[1, 1], [1, 1]]
    assert calls == [(1, 3, 4)] * 2 + [(1, 2)] * 2


def test_an_error_reaches_every_thread_that_waits():
    def broken(deltas):
        raise ArithmeticError("no")

    statistics = LayerStatistics([as_lazy({"a": torch.ones(3)})], broken, lambda entries: [1])
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            statistics.of("a")
