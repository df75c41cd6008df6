"""write=lora: adapters that peft loads, with what the truncation leaves out of them."""

import copy
import json
import re
import warnings

import peft
import pytest
import torch
from made_up import adapters
from made_up.adapters import adapter, save_base, saved, set_random
from made_up.merges import made, write_checkpoints
from safetensors.torch import load_file, save_file

from tsv_bench import methods
from tsv_bench.merging import merge_files
from tsv_bench.merging.scaling.layer_alphas import LayerAlphas
from tsv_bench.state_dicts.open_vectors import open_task_vector
from tsv_bench.state_dicts.state_dict import open_state_dict

ALL = 40  # more than any matrix has
near = {"rtol": 0, "atol": 1e-5}  # values up to ten, sums of three matrices in float32


def loaded(model, folder):
    """The model with an adapter, as peft loads it and merges it into the weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*missing.*keys")
        adapted = peft.PeftModel.from_pretrained(copy.deepcopy(model), folder)
        return adapted.merge_and_unload()


def tuned(base, changed, seed):
    """The base's tensors, those changed whose name has one of these in it."""
    generator = torch.Generator().manual_seed(seed)
    noise = {n: 0.3 * torch.randn(t.shape, generator=generator) for n, t in base.items()}
    chosen = [name for name in base if any(part in name for part in changed)]
    return base | {name: base[name] + noise[name] for name in chosen}


KINDS = {
    "llama": ("q_proj", "mlp", "norm", "lm_head", "embed_tokens"),
    "qwen2": ("q_proj", "k_proj"),  # with biases of q and k
    "gpt2": ("c_attn", "c_fc", "ln_f", "attn.c_proj.weight"),
    "t5": ("SelfAttention",),
    "clip": ("attn", "c_fc.weight", "ln_1", "conv1"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_peft_loads_what_would_be_written_whole(kind, tmp_path):
    model = getattr(adapters, kind)()
    set_random(model)
    base = load_file(save_base(model, tmp_path / "base") / "model.safetensors")
    for number, task in enumerate("ab"):
        save_file(tuned(base, KINDS[kind], number), tmp_path / f"{task}.safetensors")
    found = {}
    for write, output in {"model": "whole.safetensors", "lora": "adapter"}.items():
        [found[write]] = made(
            tmp_path, "task_arithmetic", output, base="base/model.safetensors", write=write,
            alpha=LayerAlphas(default=0.5, by_depth=(0.3, 0.8)), rank=ALL,
        )  # fmt: skip
    expected = found["model"]
    merged = saved(loaded(model, tmp_path / "adapter"), tmp_path / "merged")
    assert set(merged) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, **near)
    ours = open_task_vector(
        open_state_dict(tmp_path / "base"), open_state_dict(tmp_path / "adapter")
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(ours.weights[name], tensor, **near)
    untouched = [name for name in base if not any(part in name for part in KINDS[kind])]
    assert untouched and all(torch.equal(merged[name], base[name]) for name in untouched)


def test_merged_adapters_are_one_adapter_of_the_sum_of_their_ranks(tmp_path):
    model = adapters.gpt2()
    set_random(model)
    save_base(model, tmp_path / "base")
    settings = {"target_modules": ["c_attn", "c_fc"], "lora_alpha": 4, "task_type": "CAUSAL_LM"}
    for task in "ab":
        adapter(model, tmp_path / task, r=2, **settings)
    paths = {"a": "a", "b": "b"}
    [expected] = made(tmp_path, "tsv_merge", "whole", base="base", tuned=paths)
    made(tmp_path, "tsv_merge", "adapter", base="base", tuned=paths, write="lora", rank=4)
    merged = saved(loaded(model, tmp_path / "adapter"), tmp_path / "merged")
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, **near)
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"], written["task_type"]) == (4, 4, "CAUSAL_LM")
    assert written["fan_in_fan_out"] and written["bias"] == "none"


def test_names_are_those_of_the_adapters(tmp_path):
    """GPT-2's files on the hub have no prefix, the models that adapters are trained on have."""
    model = adapters.gpt2()
    set_random(model)
    state = load_file(save_base(model, tmp_path / "base") / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    save_file(short, tmp_path / "short.safetensors")
    for task in "ab":
        adapter(model, tmp_path / task, r=2, target_modules=["c_attn"])
    found = []
    for base in ("base/model.safetensors", "short.safetensors"):
        output = f"of {base[:4]}"
        made(tmp_path, "weight_average", output, base=base, tuned={"a": "a", "b": "b"},
             write="lora", rank=4)  # fmt: skip
        found.append(load_file(tmp_path / output / "adapter_model.safetensors"))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def written_table(tmp_path, **settings):
    """Write an adapter of the sum of two tasks; return what is said of it."""
    tuned = {task: tmp_path / f"{task}.safetensors" for task in "ab"}
    return merge_files.merge(
        methods.task_arithmetic, tmp_path / "base.safetensors", tuned, tmp_path / "out",
        progress=False, write="lora", **settings,
    ).stored  # fmt: skip


def test_what_is_left_out_is_said(tmp_path):
    base = {"first.weight": torch.zeros(9, 6), "second.weight": torch.zeros(5, 5)}
    deltas = {name: torch.randn(tensor.shape) for name, tensor in base.items()}
    deltas["second.weight"] *= 0.1
    save_file(base, tmp_path / "base.safetensors")
    for task, share in {"a": 0.25, "b": 0.75}.items():
        save_file({n: share * d for n, d in deltas.items()}, tmp_path / f"{task}.safetensors")
    table = written_table(tmp_path, rank=2, alpha=-2.0)
    values = {name: torch.linalg.svdvals(delta) for name, delta in deltas.items()}
    lost = {name: float(s[2:].norm() / s.norm()) for name, s in values.items()}
    squares = [sum(float(s[k:].square().sum()) for s in values.values()) for k in (2, 0)]
    share, most, where = re.search(r"(\S+)%\s+(\S+)%\s+(\S+)$", table).groups()
    assert float(share) == pytest.approx(100 * (squares[0] / squares[1]) ** 0.5, abs=0.006)
    assert where == max(lost, key=lost.get)
    assert float(most) == pytest.approx(100 * max(lost.values()), abs=0.006)
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    key = "base_model.model.first.lora_{}.weight"
    product = written[key.format("B")] @ written[key.format("A")]
    u, s, vh = torch.linalg.svd(-2 * deltas["first.weight"], full_matrices=False)
    torch.testing.assert_close(product, u[:, :2] * s[:2] @ vh[:2], **near)


def test_compressed_task_vectors_are_an_adapter_each(tmp_path):
    base = {"first.weight": torch.zeros(9, 6), "second.weight": torch.zeros(8, 8)}
    save_file(base, tmp_path / "base.safetensors")
    for task in "ab":
        save_file({n: torch.randn(t.shape) for n, t in base.items()},
                  tmp_path / f"{task}.safetensors")  # fmt: skip
    whole = made(tmp_path, "tsv_compress", "whole")
    made(tmp_path, "tsv_compress", "adapters", write="lora", rank=ALL)
    for task, expected in zip("ab", whole, strict=True):
        folder = tmp_path / "adapters" / task
        pretrained = open_state_dict(tmp_path / "base.safetensors")
        found = open_task_vector(pretrained, open_state_dict(folder))
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, **near)
        settings = json.loads((folder / "adapter_config.json").read_text())
        assert (settings["r"], settings["rank_pattern"]) == (4, {"^first": 3})  # half of each


@pytest.mark.parametrize("name", ["visual.proj", "logit_scale", "x.in_proj_weight", "a.wte.weight"])
def test_parameter_that_peft_has_no_place_for_is_named(name, tmp_path):
    base = {name: torch.zeros(36, 12), "layer.weight": torch.zeros(4, 4)}
    for file, value in {"base": 0, "a": 1, "b": 1}.items():
        save_file({n: t + value for n, t in base.items()}, tmp_path / f"{file}.safetensors")
    with pytest.raises(ValueError, match=f"write=lora has no place for '{name}'"):
        written_table(tmp_path, rank=4)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "output", "message"),
    [
        ({"rank": None}, "out", "write=lora needs rank="),
        ({"rank": 0}, "out", "rank=0 is no rank"),
        ({"rank": True}, "out", "rank=True is no rank"),
        ({"rank": 4}, "out.safetensors", "names a file; write=lora writes a folder"),
    ],
)
def test_what_cannot_be_written_is_refused(settings, output, message, tmp_path):
    write_checkpoints(tmp_path)
    with pytest.raises(ValueError, match=message):
        made(tmp_path, "tsv_merge", output, write="lora", **settings)


def test_adapter_that_a_merge_has_written_is_replaced(tmp_path):
    base = {"first.weight": torch.zeros(9, 6)}
    save_file(base, tmp_path / "base.safetensors")
    for task in "ab":
        save_file({"first.weight": torch.ones(9, 6)}, tmp_path / f"{task}.safetensors")
    written_table(tmp_path, rank=1)
    with pytest.raises(ValueError, match="is there already"):
        written_table(tmp_path, rank=1)
    (tmp_path / "out" / "README.md").write_text("of the user")
    written_table(tmp_path, rank=2, overwrite=True)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 2
    assert (tmp_path / "out" / "README.md").read_text() == "of the user"
