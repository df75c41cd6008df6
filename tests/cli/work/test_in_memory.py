"""tsv_bench.merge: as the command, for dicts, modules and paths."""

import subprocess
import sys

import pytest
import torch
import torchvision
from made_up.merges import finetuned, merge, pretrained, same, write_checkpoints
from torch import nn

import tsv_bench
from tsv_bench import methods
from tsv_bench.state_dicts.state_dict import open_state_dict

STATES = {"a": finetuned(0), "b": finetuned(1)}


@pytest.mark.parametrize(
    ("method", "knobs", "arguments"),
    [
        ("tsv_merge", {"rank_fraction": 0.25}, ["method.rank_fraction=0.25"]),
        ("task_arithmetic", {"weights": {"a": 0.3, "b": 0.7}}, ["weights={a: 0.3, b: 0.7}"]),
        ("ties", {"density": 0.1, "alpha": {"visual.*": 2}},
         ["method.density=0.1", "alpha={visual.*: 2}"]),
        ("tsv_merge", {"kernels": True}, ["kernels=true"]),
        ("iso_c", {"alpha_by_depth": [0.5, 1]}, ["alpha_by_depth=[0.5,1]"]),
    ],
)  # fmt: skip
def test_a_merge_in_memory_is_that_of_the_command(tmp_path, method, knobs, arguments):
    write_checkpoints(tmp_path)
    merge(tmp_path, "out.safetensors", f"method={method}", *arguments)
    found = tsv_bench.merge(pretrained(), STATES, method, progress=False, **knobs)
    assert list(found) == list(pretrained())
    same(found, dict(open_state_dict(tmp_path / "out.safetensors")))


def test_paths_dicts_and_half_precision_go_together(tmp_path):
    write_checkpoints(tmp_path, dtype=torch.bfloat16)
    base, a = tmp_path / "base.safetensors", tmp_path / "a.safetensors"
    given = {"a": a, "b": finetuned(1, torch.bfloat16)}
    found = tsv_bench.merge(str(base), given, "weight_average", progress=False)
    states = {"a": finetuned(0, torch.bfloat16), "b": given["b"]}
    same(found, tsv_bench.merge(pretrained(torch.bfloat16), states, "weight_average"))
    assert found["visual.proj"].dtype == torch.bfloat16


def network(seed):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4), nn.LayerNorm(4))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * seed * torch.randn(parameter.shape)
    return model


def test_modules_are_merged_and_left_alone():
    base, tuned = network(0), {"a": network(1), "b": network(2)}
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    merged = tsv_bench.merge(base, tuned, "weight_average", progress=False)
    same(base.state_dict(), before)
    for name, tensor in merged.items():
        mean = (tuned["a"].state_dict()[name] + tuned["b"].state_dict()[name]) / 2
        torch.testing.assert_close(tensor, mean, rtol=0, atol=1e-6)
        assert not tensor.requires_grad
    base.load_state_dict(merged)


def test_a_method_of_each_tasks_own_returns_one_a_task():
    found = tsv_bench.merge(pretrained(), STATES, "individual", progress=False)
    assert list(found) == ["a", "b"]
    for task, state in found.items():
        for name, tensor in state.items():
            wanted = STATES[task][name] if tensor.is_floating_point() else pretrained()[name]
            torch.testing.assert_close(tensor, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "tsv_mrge"}, "unknown method 'tsv_mrge'; did you mean 'tsv_merge'"),
        ({"density": 1}, "tsv_merge has no knob 'density'"),
        ({"rank_fraction": 3}, r"rank_fraction=3 is not in \(0, 1\]"),
        ({"method": "regmean"}, "needs inputs beside the weights"),
        ({"method": "slerp", "finetuned": {"a": STATES["a"]}}, "slerp is for exactly 2 tasks"),
        ({"weights": {"a": 1}}, "the task 'b' has no weight"),
        ({"method": "slerp", "weights": {"a": 1, "b": 1}}, "weights= has no effect on"),
        ({"method": "ties", "stacked": True}, "stacked= and kernels= have no effect on"),
        ({"alpha": "big"}, "alpha='big' is not a number"),
        ({"finetuned": {}}, "no fine-tuned checkpoints"),
        ({"finetuned": {"a": 3}}, "a: int is no state dict, module or path"),
        ({"finetuned": {"a": {"w": 3}}}, "a: 'w' is a int and no tensor"),
        ({"finetuned": {"a": {"w": torch.ones(2)}}}, "a: cannot subtract checkpoints with diff"),
        ({"finetuned": {"a": pretrained()}}, "equals the pretrained one"),
    ],
)
def test_what_cannot_be_merged(settings, message):
    settings = {"finetuned": STATES} | settings
    with pytest.raises(ValueError, match=message):
        tsv_bench.merge(pretrained(), **settings)


def test_running_variances_stay_variances():
    """As in files: averaged, whatever the method and alpha."""
    states = [nn.BatchNorm1d(3).state_dict() for _ in range(3)]
    base, a, b = states
    a["running_var"].fill_(0.3), b["running_var"].fill_(0.4)
    merged = tsv_bench.merge(base, {"a": a, "b": b}, "task_arithmetic", alpha=1.0, progress=False)
    torch.testing.assert_close(merged["running_var"], torch.full((3,), 0.35))


def test_quantized_weights_are_refused():
    codes = {"l.qweight": torch.arange(4, dtype=torch.int8), "l.scales": torch.ones(2)}
    other = {"l.qweight": codes["l.qweight"] + 1, "l.scales": torch.ones(2) * 2}
    with pytest.raises(ValueError, match="l.qweight"):
        tsv_bench.merge(codes, {"a": other})


def test_names_are_paired_as_in_files(tmp_path):
    """Wrapped dicts, prefixes of training programs, and a file beside what is in memory."""
    write_checkpoints(tmp_path)
    named = {f"module.{name}": tensor for name, tensor in STATES["a"].items()}
    given = {"a": {"state_dict": named, "epoch": 3}, "b": tmp_path / "b.safetensors"}
    found = tsv_bench.merge({"model": pretrained()}, given, progress=False)
    assert list(found) == list(pretrained())
    same(found, tsv_bench.merge(pretrained(), STATES, progress=False))


def language_model(seed, head=None, classes=None):
    """An embedding, a matrix, and a head: tied if ``head`` is, or of some classes."""
    generator = torch.Generator().manual_seed(seed)
    state = {"embed.weight": torch.randn(6, 4, generator=generator),
             "layer.weight": torch.randn(4, 4, generator=generator)}  # fmt: skip
    if head == "tied":
        state["lm_head.weight"] = state["embed.weight"]
    if classes:
        state["head.weight"] = torch.randn(classes, 4, generator=generator)
    return state


def test_a_tied_head_stays_tied_under_random_masks():
    base, a, b = (language_model(seed, "tied") for seed in range(3))
    del b["lm_head.weight"]  # as by save_pretrained
    for states in ({"a": a}, {"a": a, "b": b}):
        found = tsv_bench.merge(base, states, "dare_ta", density=0.5, progress=False)
        assert list(found) == list(base)
        assert torch.equal(found["lm_head.weight"], found["embed.weight"])


def test_heads_of_other_classes_are_refused_and_left_on_request():
    base, a, b = language_model(0), language_model(1, classes=2), language_model(2, classes=3)
    tuned = {"a": a, "b": b}
    with pytest.raises(ValueError, match=r"a: .*alone has head.weight.*shared_only=true"):
        tsv_bench.merge(base, tuned, "weight_average")
    found = tsv_bench.merge(base, tuned, "weight_average", shared_only=True, progress=False)
    assert list(found) == list(base)
    mean = (a["layer.weight"] + b["layer.weight"]) / 2
    torch.testing.assert_close(found["layer.weight"], mean, rtol=0, atol=1e-6)
    found = tsv_bench.merge(
        base, tuned, "weight_average", shared_only=True, rest_from="b", progress=False
    )
    assert torch.equal(found["head.weight"], b["head.weight"])
    assert found["head.weight"] is not b["head.weight"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((4, 4), torch.nan), "a: .* holds NaN or infinity in 'layer.weight'"),
        (torch.empty(4, 4, device="meta"), "a: 'layer.weight' is a meta tensor"),
        (torch.eye(4).to_sparse(), "a: 'layer.weight' is a sparse or quantized tensor"),
    ],
)
def test_values_that_are_none_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        tsv_bench.merge(language_model(0), {"a": language_model(1) | {"layer.weight": value}})


def test_factors_without_their_configuration_are_refused():
    factors = {"layer.lora_A.weight": torch.ones(1, 4), "layer.lora_B.weight": torch.ones(4, 1)}
    with pytest.raises(ValueError, match="a: these are a LoRA adapter's factors: give the path"):
        tsv_bench.merge(language_model(0), {"a": factors})


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"b: .*there.pt"):
        tsv_bench.merge(pretrained(), {"a": STATES["a"], "b": "there.pt"})


def test_the_package_is_imported_without_torch():
    code = "import sys, tsv_bench; assert 'merge' in dir(tsv_bench) or tsv_bench.__all__; "
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)


def test_experts_of_a_mixtral_are_matrices_if_so_asked():
    """The model as transformers makes it, whose experts are stacked; it takes the result."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=3,
    )  # fmt: skip
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(transformers.MixtralForCausalLM(config))
    base, a, b = (model.state_dict() for model in models)
    stacks = [name for name, tensor in base.items() if tensor.ndim == 3]
    assert stacks and all("experts" in name for name in stacks)
    tuned = {"a": models[1], "b": models[2]}
    merged = tsv_bench.merge(models[0], tuned, stacked=True, progress=False)
    for name in stacks:
        for expert, found in enumerate(merged[name]):
            own = {"a": {"w": a[name][expert] - base[name][expert]},
                   "b": {"w": b[name][expert] - base[name][expert]}}  # fmt: skip
            expected = base[name][expert] + methods.tsv_merge(own)["a"]["w"]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # float32
    models[0].load_state_dict(merged)


def test_kernels_of_a_resnet_are_matrices_if_so_asked():
    """A block of torchvision's, with its normalizations; it takes the result."""
    block = torchvision.models.resnet.BasicBlock
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), block(6, 6)))
        for name, buffer in models[-1].named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
    base, a, b = (model.state_dict() for model in models)
    merged = tsv_bench.merge(models[0], {"a": a, "b": b}, kernels=True, progress=False)
    kernels = [name for name, tensor in base.items() if tensor.ndim == 4]
    assert len(kernels) == 3
    for name in kernels:
        own = {task: {"w": (state[name] - base[name]).flatten(1)}
               for task, state in (("a", a), ("b", b))}  # fmt: skip
        expected = base[name].flatten(1) + methods.tsv_merge(own)["a"]["w"]
        torch.testing.assert_close(merged[name].flatten(1), expected, rtol=0, atol=1e-5)  # float32
    plain = tsv_bench.merge(models[0], {"a": a, "b": b}, progress=False)
    assert not any(torch.allclose(plain[name], merged[name], atol=1e-3) for name in kernels)
    running = [name for name in base if "running" in name]
    for name in running:
        torch.testing.assert_close(merged[name], (a[name] + b[name]) / 2, rtol=0, atol=1e-6)
    models[0].load_state_dict(merged)
    assert models[0].eval()(torch.ones(1, 3, 8, 8)).isfinite().all()
