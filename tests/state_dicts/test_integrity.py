"""Hashes of weights are those that files of earlier versions hold."""

import torch

from tsv_bench.models.clip import fingerprint
from tsv_bench.state_dicts.integrity import hash_weights
from tsv_bench.state_dicts.low_rank import weights_hash

# The two ways to write a shape, (2, 3) and [2, 3].
TUPLES = "de8f9c3334dc0ea6787199c51d688e0363225ae13e31c57b419eb62fce380204"
LISTS = "58f533ed3bc94e1864e7fbadbf084f090fee819c9e287fc978754f1d0f6be9c6"


def test_hashes_are_those_of_files_that_were_written_before():
    state = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(1.5, dtype=torch.bfloat16)}
    assert weights_hash(state) == hash_weights(state, tuple) == TUPLES
    assert fingerprint(state) == hash_weights(state, list) == LISTS
    turned = {"b": torch.arange(6.0).view(3, 2).mT.contiguous(), "a": state["a"]}
    assert hash_weights(turned, tuple) != TUPLES
    views = {"b": state["b"].mT.contiguous().mT, "a": state["a"]}  # other strides
    assert hash_weights(views, tuple) == TUPLES
