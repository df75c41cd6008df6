"""What lies between two bounds is what comparing every value says."""

import pytest
import torch

from tsv_bench.linalg import selection
from tsv_bench.linalg.selection import ranked, within


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("bounds", [(0, 9), (3, 3), (4, 7), (0, 0), (10, 2**31 - 1), (9, 12)])
def test_values_within_bounds_and_how_many_are_below(dtype, bounds):
    values = torch.randint(0, 10, (500,), generator=torch.Generator().manual_seed(1)).to(dtype)
    low, high = bounds
    num_below, _, inside = within(values, low, high)
    assert num_below == sum(value < low for value in values.tolist())
    assert inside.tolist() == [value - low for value in values.tolist() if low <= value <= high]


def test_of_no_values_none_is_found():
    num_below, _, inside = within(torch.empty(0, dtype=torch.int32), 1, 5)
    assert num_below == 0 and inside.tolist() == []


def test_the_largest_number_of_a_type_is_one():
    largest = torch.iinfo(torch.int32).max
    num_below, _, inside = within(torch.tensor([0, largest], dtype=torch.int32), 1, largest)
    assert (num_below, inside.tolist()) == (1, [largest - 1])


@pytest.mark.parametrize("apart", [[4], [7, 4], [5, 6, 4, 7]])
def test_what_is_apart_is_counted_and_left_out(apart):
    values = torch.randint(0, 10, (500,), generator=torch.Generator().manual_seed(1))
    num_below, counts, inside = within(values, 4, 7, apart)
    all_below, _, everything = within(values, 4, 7)
    assert num_below == all_below and counts == [values.tolist().count(value) for value in apart]
    assert inside.tolist() == [v for v in everything.tolist() if v + 4 not in apart]


VALUES = {
    "all different": torch.arange(3000),
    "few distinct": torch.arange(3000) % 7,
    "all equal": torch.full((3000,), 4),
    "in rows": torch.arange(3000) % 30 * 100,  # whose length the sample's step may fit
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("sample", [8, 64, 2**16])
def test_values_of_ranks_are_those_of_the_sorted_values(kind, sample, monkeypatch):
    monkeypatch.setattr(selection, "SAMPLE", sample)
    shuffled = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    values = VALUES[kind] if kind == "in rows" else VALUES[kind][shuffled]
    for dtype in (torch.int32, torch.int64):
        places = [0, 1, 299, 1500, 2998, 2999]
        assert ranked(values.to(dtype), places) == values.sort().values[places].tolist()
