"""An adapter is the fine-tuned checkpoint that peft merges it to."""

import pytest
import torch
from made_up import adapters
from made_up.adapters import adapter, save_base, saved, set_random

from tsv_bench.state_dicts.open_vectors import open_task_vector
from tsv_bench.state_dicts.state_dict import open_state_dict

QUICK = ["q_proj", "down_proj"]
CASES = {
    "llama": ("llama", {"target_modules": QUICK}),
    "rank and alpha by module": (
        "llama",
        {
            "target_modules": QUICK,
            "rank_pattern": {"layers.1.self_attn.q_proj": 5, "down_proj": 2},
            "alpha_pattern": {r".*\.0\.mlp\.down_proj": 3},
        },
    ),
    "rslora": ("llama", {"target_modules": QUICK, "use_rslora": True}),
    "head": ("llama", {"target_modules": QUICK, "modules_to_save": ["lm_head", "norm"]}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj", "lm_head"]}),
    "tokens": ("llama", {"target_modules": QUICK, "trainable_token_indices": [3, 17]}),
    "dora": ("llama", {"target_modules": QUICK, "use_dora": True}),
    "bin": ("llama", {"target_modules": QUICK, "bin": True}),
    "qwen2": ("qwen2", {"target_modules": ["q_proj", "k_proj", "o_proj"]}),
    "tied embedding": ("qwen2", {"target_modules": ["embed_tokens", "q_proj"]}),
    "all biases": ("qwen2", {"target_modules": ["q_proj"], "bias": "all"}),
    "biases of adapted layers": ("qwen2", {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "bias by lora": ("qwen2", {"target_modules": ["q_proj", "k_proj"], "lora_bias": True}),
    "gpt2": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "gpt2, square": ("gpt2", {"target_modules": ["attn.c_proj"], "fan_in_fan_out": True}),
    "gpt2, dora": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "use_dora": True}),
    "t5": ("t5", {"target_modules": ["q", "v", "wo"]}),
    "convolution": ("clip", {"target_modules": ["conv1"]}),
    # peft adds what is learned for the output of attention twice, in its forward pass, too.
    "attention of open_clip": (
        "clip",
        {"target_modules": ["attn", "c_fc"], "use_rslora": True, "rank_pattern": {"attn": 3}},
    ),
}


def opened(base, folder):
    base = open_state_dict(base)
    vector = open_task_vector(base, open_state_dict(folder))
    return base, vector


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_peft(case, tmp_path):
    kind, settings = CASES[case]
    model = getattr(adapters, kind)()
    set_random(model)
    base_path = save_base(model, tmp_path / "base")
    merged = adapter(model, tmp_path / "adapter", r=4, lora_alpha=6, **settings)
    expected = saved(merged, tmp_path / "merged")
    base, vector = opened(base_path, tmp_path / "adapter")
    assert set(vector.weights) == set(expected) == set(base)
    changed = [name for name in base if not torch.equal(base[name], expected[name])]
    assert changed
    for name in expected:  # values are about 1, rounded in another order
        torch.testing.assert_close(vector.weights[name], expected[name], rtol=0, atol=1e-6)
        delta = base[name] + vector[name]
        torch.testing.assert_close(delta, expected[name], rtol=0, atol=1e-6)
        rows = vector.rows(name, 1, 3) if vector.shape(name) else vector[name]
        expected_rows = vector[name][1:3] if vector.shape(name) else vector[name]
        torch.testing.assert_close(rows, expected_rows, rtol=0, atol=1e-6)
        if name not in changed:
            assert vector.factor_rank(name) == 0 or vector.factor_rank(name) is None
        if factors := vector.factors(name):
            torch.testing.assert_close(factors[0] @ factors[1], vector[name], rtol=0, atol=1e-6)
