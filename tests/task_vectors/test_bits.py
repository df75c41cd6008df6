"""Masks as bits: eight entries a byte."""

import pytest
import torch

from tsv_bench.task_vectors.bits import pack_bits, unpack_bits


@pytest.mark.parametrize("num_entries", [0, 1, 7, 8, 9, 64, 1001])
def test_bits_come_back(num_entries):
    kept = torch.rand(3, num_entries) < 0.5
    packed = pack_bits(kept)
    assert packed.dtype == torch.uint8 and packed.shape == (3, -(-num_entries // 8))
    for bits, expected in zip(packed, kept, strict=True):
        assert torch.equal(unpack_bits(bits, num_entries), expected)


def test_the_first_entry_is_the_lowest_bit():
    assert pack_bits(torch.tensor([[True, False, False, True, *[False] * 4, True]])).tolist() == [
        [9, 1]
    ]
