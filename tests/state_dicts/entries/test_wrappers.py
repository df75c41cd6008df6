"""The weights are found under any one key; several are refused by name."""

import pytest
import torch

from tsv_bench.state_dicts.entries.wrappers import weights_in

WEIGHTS = {"w": torch.ones(2), "b": torch.tensor(1.0)}
MOMENTS = {"state": {0: {"exp_avg": torch.ones(2)}}}


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"net": WEIGHTS, "acc": 0.9},
        {"net": WEIGHTS, "accuracy": torch.tensor(0.9)},
        {"a": {"b": {"c": WEIGHTS}}, "optimizer": {"w": torch.ones(2)}, "opt": MOMENTS},
        {"state_dict": WEIGHTS, "ema": dict(WEIGHTS)},
        {"x": WEIGHTS, "y": WEIGHTS},  # one dict under two names
    ],
)
def test_weights_are_found_under_any_one_key(content, tmp_path):
    assert weights_in(tmp_path, content) is WEIGHTS


def test_weights_under_several_keys_are_refused(tmp_path):
    content = {"generator": WEIGHTS, "parts": {"critic": dict(WEIGHTS)}}
    with pytest.raises(ValueError, match=r"under 2 keys, generator, parts\.critic: which are"):
        weights_in(tmp_path, content)


def test_numbers_alone_are_weights_where_there_are_no_others(tmp_path):
    content = {"scale": torch.tensor(1.0), "log": {"step": 3}}
    assert weights_in(tmp_path, content) is content
