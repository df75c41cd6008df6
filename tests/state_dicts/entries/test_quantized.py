"""What no arithmetic merges is kept where all agree, and refused where they do not."""

import pytest
import torch

from tsv_bench.state_dicts.entries.kinds import is_count, is_rebuilt, is_running, is_vocabulary
from tsv_bench.state_dicts.entries.quantized import check_integers, check_unscaled, same_values
from tsv_bench.task_vectors.lazy import as_lazy

FLOAT8 = torch.float8_e4m3fn


@pytest.mark.parametrize(
    ("codes", "scale", "dtype"),
    [
        ("l.weight", "l.weight_scale", FLOAT8),
        ("l.weight", "l.weight_scale_inv", FLOAT8),
        ("l.weight", "l.scale", FLOAT8),
        ("l.qweight", "l.scales", torch.int8),
        ("l.weight", "l.SCB", torch.int8),
        ("l.weight", "l.weight.absmax", torch.uint8),
        ("experts.gate_up_proj_blocks", "experts.gate_up_proj_scales", torch.uint8),
    ],
)
def test_codes_with_a_scale_beside_them_are_named(codes, scale, dtype):
    state = {codes: torch.ones(2, 2).to(dtype), scale: torch.ones(2)}
    with pytest.raises(ValueError, match=f"'{codes}' is quantized: .*'{scale}' is their scale"):
        check_unscaled(as_lazy(state))


def test_flags_and_weights_without_a_scale_are_not_taken_for_codes():
    state = {"l.mask": torch.ones(2, 2).byte(), "l.scale": torch.ones(2), "l.on": torch.ones(2) > 0}
    state |= {"m.weight": torch.ones(2, 2).to(FLOAT8), "n.weight": torch.ones(2).half()}
    check_unscaled(as_lazy(state | {"n.weight_scale": torch.ones(2)}))


UNLIKE = {
    "int8": torch.tensor([1, 2, 3], dtype=torch.int8),
    "uint8": torch.tensor([1, 2, 3], dtype=torch.uint8),
    "int32": torch.tensor([1, 2, 3], dtype=torch.int32),
    "complex": torch.tensor([1 + 1j, 2.0, 3.0]),
    "bool": torch.tensor([True, True, False]),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_entries_that_are_not_merged_must_agree(kind):
    base, odd = {"l.buffer": UNLIKE[kind]}, {"l.buffer": UNLIKE[kind].flip(0)}
    check_integers(base, {"a": base})
    with pytest.raises(ValueError, match="b: 'l.buffer' is not what the pretrained checkpoint has"):
        check_integers(base, {"a": base, "b": odd})


def test_integers_in_place_of_weights_and_the_other_way_round_are_refused():
    base = {"w": UNLIKE["int8"]}
    with pytest.raises(ValueError, match="int8 in the pretrained, float32 in it"):
        check_integers(base, {"a": {"w": UNLIKE["int8"].float()}})


def test_counters_and_positions_may_differ_and_are_said(caplog):
    caplog.set_level("INFO")
    base = {"n.num_batches_tracked": torch.tensor(3), "position_ids": torch.arange(4)[None]}
    base |= {"steps": torch.tensor(1)}
    check_integers(base, {"a": {name: tensor + 1 for name, tensor in base.items()}, "b": base})
    assert "n.num_batches_tracked, position_ids and 1 more: counters and positions" in caplog.text
    assert len(caplog.records) == 1


def test_values_are_compared_bit_by_bit_and_across_types():
    state = as_lazy({
        "w": torch.tensor([[1.0, torch.nan]]), "same": torch.tensor([[1.0, torch.nan]]),
        "half": torch.tensor([[1.0, 2.0]]).half(), "eight": torch.tensor([[1.0, 2.0]]).to(FLOAT8),
        "other": torch.tensor([[1.0, 2.5]]).half(), "long": torch.ones(1, 3),
    })  # fmt: skip
    assert same_values(state, "w", state, "same") and same_values(state, "half", state, "eight")
    assert not same_values(state, "half", state, "other")
    assert not same_values(state, "half", state, "long")


def test_kinds_are_told_by_whole_names():
    whole, square = torch.int64, (1, 1, 8, 8)
    assert is_count("x.position_ids", whole, (1, 5)) and is_count("steps", whole, ())
    assert not is_count("x.my_position_ids", whole, (1, 5)) and not is_count("x", torch.bool, ())
    assert is_rebuilt("h.0.attn.bias", square) and not is_rebuilt("h.0.attn.bias", (8,))
    assert is_rebuilt("model.rotary_emb.inv_freq", (8,)) and not is_rebuilt("inv_freq.weight", (8,))
    assert is_running("bn1.running_var") and not is_running("running_var.weight")
    assert is_vocabulary("model.embed_tokens.weight") and is_vocabulary("lm_head.bias")
    assert not is_vocabulary("classifier.weight")
