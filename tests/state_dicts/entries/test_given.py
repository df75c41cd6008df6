"""Tensors in memory read as a file's are."""

import pytest
import torch

from tsv_bench.state_dicts.entries.given import given_state_dict
from tsv_bench.state_dicts.state_dict import CachedReads
from tsv_bench.task_vectors.lazy import as_lazy


def test_rows_are_the_callers_own_and_have_no_gradient():
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(3, 2))
    content = {"w": weight, "t": weight.T, "steps": torch.tensor(3)}
    for state in (given_state_dict(content), given_state_dict(as_lazy(content))):
        assert list(state) == ["w", "t", "steps"]
        rows = CachedReads(state).rows("w", 1, 3)
        assert rows.tolist() == [[2, 3], [4, 5]] and not rows.requires_grad
        rows.zero_()
        assert weight.sum() == 15
        assert torch.equal(state["t"], weight.T) and state["t"].is_contiguous()
        assert state["steps"] == 3 and state.dtype("steps") == torch.int64


def test_several_dicts_of_weights_are_refused():
    with pytest.raises(ValueError, match="weights under 2 keys, net, ema: which .*Give them alone"):
        given_state_dict({"net": {"w": torch.ones(2)}, "ema": {"w": torch.ones(2)}})
