"""Entries that no method may merge as it pleases: statistics, infinities, copies, integers."""

import json
from functools import partial

import pytest
import torch
from made_up.merges import made, merge, same
from made_up.state_dicts import save, save_sharded
from torch import nn

from tsv_bench.merging import merge_files
from tsv_bench.state_dicts.inputs import open_inputs
from tsv_bench.state_dicts.state_dict import open_state_dict

TUNED = {"a": "a.pt", "b": "b.pt"}


def write(folder, states):
    for name, state in states.items():
        save(state, folder / f"{name}.pt", "torch")


def merged(folder, method="task_arithmetic", output="out.safetensors", **settings):
    return made(folder, method, output, base="base.pt", tuned=TUNED, **settings)


def normalized(step):
    """A network with BatchNorm, and running statistics of a task."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor += step * torch.randn(tensor.shape)
    state["1.running_var"] = torch.full((3,), 1 - 0.7 * bool(step) + step)
    state["1.num_batches_tracked"] = torch.tensor(int(100 * step))
    return model, state


@pytest.mark.parametrize("method", ["task_arithmetic", "tsv_merge", "magmax"])
def test_running_statistics_are_averaged_whatever_the_method(method, tmp_path, caplog):
    caplog.set_level("INFO")
    states = {name: normalized(step)[1] for name, step in (("base", 0), ("a", 0.1), ("b", 0.2))}
    write(tmp_path, states)
    [found] = merged(tmp_path, method)
    torch.testing.assert_close(found["1.running_var"], torch.full((3,), 0.45))
    mean = (states["a"]["1.running_mean"] + states["b"]["1.running_mean"]) / 2
    torch.testing.assert_close(found["1.running_mean"], mean)
    assert found["1.num_batches_tracked"] == 0
    model = normalized(0)[0]
    model.load_state_dict(found)
    assert model.eval()(torch.randn(2, 2, 2, 2)).isfinite().all()
    assert "1.running_mean, 1.running_var: running statistics are averaged over" in caplog.text
    assert "1.num_batches_tracked: counters and positions stay" in caplog.text


@pytest.mark.parametrize("method", ["individual", "emr"])
def test_a_model_of_one_task_has_its_own_running_statistics(method, tmp_path):
    states = {name: normalized(step)[1] for name, step in (("base", 0), ("a", 0.1), ("b", 0.2))}
    write(tmp_path, states)
    for task, found in zip("ab", merged(tmp_path, method, "out", alpha=0.5), strict=True):
        torch.testing.assert_close(found["1.running_var"], states[task]["1.running_var"])
    small = partial(merged, tmp_path, output="small", write="compressed")
    with pytest.raises(ValueError, match="'1.running_mean' is a running statistic of BatchNorm"):
        small("emr")
    small("tsv_compress")
    [file] = tmp_path.glob("small/a.safetensors")
    stored = open_inputs(tmp_path / "base.pt", {"a": file}).vectors["a"]["1.running_var"]
    torch.testing.assert_close(stored, states["a"]["1.running_var"] - 1)


def masked(step):
    mask = torch.full((4, 4), -torch.inf).triu(1)
    return {"w": torch.eye(4) * step, "mask": mask, "nan": torch.tensor([torch.nan, 1.0])}


@pytest.mark.parametrize("method", ["weight_average", "tsv_merge"])  # reading once, and before
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e5m2])
def test_infinities_that_all_have_alike_stay(method, dtype, tmp_path, caplog):
    caplog.set_level("INFO")
    states = {name: masked(step) for name, step in (("base", 1), ("a", 2), ("b", 4))}
    write(tmp_path, {n: {k: t.to(dtype) for k, t in s.items()} for n, s in states.items()})
    [found] = merged(tmp_path, method)
    assert torch.equal(found["mask"].float(), states["base"]["mask"])
    assert found["nan"].float().isnan().tolist() == [True, False] and found["nan"].float()[1] == 1
    if method == "weight_average":
        assert torch.equal(found["w"].float(), 3 * torch.eye(4))
    assert "mask, nan: NaN or infinity that all checkpoints have alike stays." in caplog.text


@pytest.mark.parametrize("method", ["weight_average", "tsv_merge"])
def test_an_infinity_that_one_lacks_is_refused(method, tmp_path):
    states = {name: masked(step) for name, step in (("base", 1), ("a", 2), ("b", 4))}
    states["b"]["mask"][0, 1] = 0
    write(tmp_path, states)
    with pytest.raises(ValueError, match="holds NaN or infinity in 'mask'"):
        merged(tmp_path, method)
    states["b"]["mask"][0, 1] = torch.inf  # the other one
    write(tmp_path, states)
    with pytest.raises(ValueError, match="holds NaN or infinity in 'mask'"):
        merged(tmp_path, method)


def test_a_tied_pair_that_is_stored_twice_gets_one_mask(tmp_path):
    torch.manual_seed(0)
    states = {}
    for name in ("base", "a", "b"):
        embedding = torch.randn(32, 8)
        states[name] = {"embed.weight": embedding, "w": torch.randn(8, 8)}
        states[name]["lm_head.weight"] = embedding.clone()
        bias = torch.randn(32)  # of BERT's head, under both its names
        states[name] |= {"predictions.bias": bias, "predictions.decoder.bias": bias.clone()}
    write(tmp_path, states)
    drop = {"density": 0.5, "seed": 0}
    [found] = merged(tmp_path, "dare_ta", knobs=drop)
    [vector] = merged(tmp_path, "dare_ta", "vector.safetensors", knobs=drop, write="vector")
    for state in (found, vector, *merged(tmp_path, "emr", "each")):
        assert torch.equal(state["embed.weight"], state["lm_head.weight"])
        assert torch.equal(state["predictions.bias"], state["predictions.decoder.bias"])


def test_vectors_that_are_alike_by_chance_are_not_tied(tmp_path):
    states = {n: {"a.bias": torch.full((64,), float(i)), "w": torch.eye(4)}
              for i, n in enumerate(("base", "a", "b"))}  # fmt: skip
    states = {n: state | {"b.bias": state["a.bias"].clone()} for n, state in states.items()}
    write(tmp_path, states)
    [found] = merged(tmp_path, "dare_ta", knobs={"density": 0.5, "seed": 0})
    assert not torch.equal(found["a.bias"], found["b.bias"])


def test_quantized_weights_are_refused_before_anything_is_written(tmp_path):
    codes = torch.tensor([[1, 2]], dtype=torch.int8)
    write(tmp_path, {n: {"l.qweight": codes + i} for i, n in enumerate(("base", "a", "b"))})
    with pytest.raises(ValueError, match="a: 'l.qweight' is not what the pretrained"):
        merged(tmp_path)
    scaled = {"l.qweight": codes, "l.scales": torch.ones(1)}
    write(tmp_path, dict.fromkeys(("base", "a", "b"), scaled))
    with pytest.raises(ValueError, match="pretrained: 'l.qweight' is quantized: .*'l.scales'"):
        merged(tmp_path)
    assert not (tmp_path / "out.safetensors").exists()


PREFIXES = ["module.{}", "_orig_mod.{}", "module._orig_mod.model.{}"]


@pytest.mark.parametrize("form", [*PREFIXES, "net", "lightning"])
def test_renamed_and_wrapped_files_merge_as_the_plain_ones_do(form, tmp_path):
    states = {name: normalized(step)[1] for name, step in (("base", 0), ("a", 0.1), ("b", 0.2))}
    write(tmp_path, states)
    [plain] = merged(tmp_path, "tsv_merge", "plain.safetensors")
    for name in "ab":
        pattern = {"net": "{}", "lightning": "model.{}"}.get(form, form)
        state = {pattern.format(key): tensor for key, tensor in states[name].items()}
        whole = {"net": {"net": state, "acc": 0.9}, "lightning": {"epoch": 3, "state_dict": state}}
        save(whole.get(form, state), tmp_path / f"{name}.pt", "torch")
    [found] = merged(tmp_path, "tsv_merge")
    same(found, plain)


def test_shared_entries_are_merged_and_the_rest_is_a_tasks(tmp_path):
    base = {"w": torch.zeros(3, 3), "pooler.w": torch.ones(2)}
    write(tmp_path, {
        "base": base,
        "a": {"bert.w": torch.ones(3, 3), "head": torch.full((2, 3), 5.0)},
        "b": {"bert.w": 3 * torch.ones(3, 3), "head": torch.ones(4, 3)},
    })  # fmt: skip
    choose = {"choices": merge_files.Choices(shared_only=True)}
    [found] = merged(tmp_path, "weight_average", **choose)
    same(found, {"w": 2 * torch.ones(3, 3), "pooler.w": torch.ones(2)})
    choose = {"choices": merge_files.Choices(shared_only=True, rest_from="a")}
    [found] = merged(tmp_path, "weight_average", "of_a.safetensors", **choose)
    same(found, {"bert.w": 2 * torch.ones(3, 3), "head": torch.full((2, 3), 5.0)})
    [vector] = merged(tmp_path, "weight_average", "v.safetensors", write="vector", **choose)
    same(vector, {"bert.w": 2 * torch.ones(3, 3)})
    with pytest.raises(ValueError, match="write=compressed stores .* without rest_from="):
        merged(tmp_path, "tsv_compress", "small", write="compressed", **choose)


@pytest.mark.parametrize("dtype", ["e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz"])
@pytest.mark.parametrize("method", ["ties", "tsv_merge", "emr"])
def test_float8_is_merged_in_float32_and_written_as_it_was(dtype, method, tmp_path):
    dtype = getattr(torch, f"float8_{dtype}")
    torch.manual_seed(0)
    narrow = {name: {"w": torch.randn(6, 6).to(dtype)} for name in ("base", "a", "b")}
    write(tmp_path, narrow)
    output = "out" if method == "emr" else "out.safetensors"
    knobs = {"knobs": {"density": 0.5}} if method == "ties" else {}
    found = merged(tmp_path, method, output, **knobs)
    write(tmp_path, {n: {"w": state["w"].float()} for n, state in narrow.items()})
    wide = merged(tmp_path, method, output.replace("out", "wide"), **knobs)
    for one, other in zip(found, wide, strict=True):
        assert one["w"].dtype == dtype
        assert torch.equal(one["w"].float(), other["w"].to(dtype).float())


def sentence_model(folder, step):
    folder.mkdir()
    save({"w": torch.full((2, 2), float(step))}, folder / "model.safetensors")
    parts = [{"path": "", "type": "Transformer"}, {"path": "1_Pooling", "type": "Pooling"}]
    parts += [{"path": "2_Dense", "type": "Dense"}, {"path": "../elsewhere", "type": "Odd"}]
    (folder / "modules.json").write_text(json.dumps(parts))
    for part in ("1_Pooling", "2_Dense", "not_named"):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(part)
    save({"linear": torch.ones(2)}, folder / "2_Dense" / "model.safetensors")


def test_folders_that_a_model_names_as_its_parts_are_copied(tmp_path):
    for step, name in enumerate(("base", "a")):
        sentence_model(tmp_path / name, step)
    (tmp_path / "base" / "1_Pooling" / "link").symlink_to(tmp_path / "a" / "modules.json")
    again = partial(made, tmp_path, "weight_average", "out", base="base", tuned={"a": "a"})
    for overwrite in (False, True):
        [found] = again(overwrite=overwrite)
        same(found, {"w": torch.ones(2, 2)})
        files = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
        assert files == {
            "model.safetensors", "modules.json", "1_Pooling/config.json", "2_Dense/config.json",
            "2_Dense/model.safetensors",
        }  # fmt: skip
    save({"linear": torch.zeros(2)}, tmp_path / "a" / "2_Dense" / "model.safetensors")
    with pytest.raises(ValueError, match="a: its 2_Dense/model.safetensors differs from the pre"):
        again(overwrite=True)


def test_a_single_file_beside_shards_must_hold_what_they_hold(tmp_path):
    content = {"v": torch.ones(3), "w": torch.eye(3), "x": torch.zeros(2)}
    save_sharded(tmp_path / "both", content=content)
    save(content, tmp_path / "both" / "model.safetensors")
    same(dict(open_state_dict(tmp_path / "both")), content)
    save(content | {"w": 2 * torch.eye(3)}, tmp_path / "both" / "model.safetensors")
    with pytest.raises(ValueError, match="are two checkpoints: 1 entries differ, first 'w'"):
        open_state_dict(tmp_path / "both")
    save({"v": torch.ones(3)}, tmp_path / "both" / "model.safetensors")
    with pytest.raises(ValueError, match="2 entries differ, first 'w'. Other loaders read"):
        open_state_dict(tmp_path / "both")


def test_an_alpha_that_makes_infinities_is_refused(tmp_path):
    steps = {"base": 1.0, "a": 3.0, "b": 5.0}
    write(tmp_path, {name: {"w": torch.full((2, 2), step)} for name, step in steps.items()})
    for alpha in (1e38, -3e38):
        with pytest.raises(ValueError, match="'w' does not fit float32.*Lower alpha"):
            merged(tmp_path, alpha=alpha)
    assert not (tmp_path / "out.safetensors").exists()


def test_the_command_takes_what_is_to_become_of_odd_entries(tmp_path):
    rows = {"base": 4, "a": 4, "b": 6}
    write(tmp_path, {
        name: {"wte.weight": torch.full((n, 2), float(n)), f"head.{name}": torch.ones(2)}
        for name, n in rows.items()
    })  # fmt: skip
    choices = ["method=weight_average", "shared_only=true", "rest_from=b", "embeddings=truncate"]
    merge(tmp_path, "out.safetensors", *choices, base="base.pt", tuned=TUNED)
    found = dict(open_state_dict(tmp_path / "out.safetensors"))
    same(found, {"wte.weight": torch.full((4, 2), 5.0), "head.b": torch.ones(2)})


def test_rows_that_the_pretrained_one_lacks_begin_at_the_mean_of_the_tasks_that_have_them(tmp_path):
    rows = {"base": 2, "a": 3, "b": 4}
    write(tmp_path, {
        name: {key: torch.full((n, 2), float(n)) for key in ("wte.weight", "lm_head.weight")}
        for name, n in rows.items()
    })  # fmt: skip
    choices = merge_files.Choices(embeddings="pad")
    [found] = merged(tmp_path, "weight_average", choices=choices)
    expected = torch.tensor([3.5, 3.5, 3.5, 4.0])[:, None].expand(4, 2)
    same(found, {"wte.weight": expected, "lm_head.weight": expected})
