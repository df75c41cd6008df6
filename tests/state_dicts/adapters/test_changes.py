"""Adapters that are not read, and those that peft writes no longer: by hand."""

import json

import pytest
import torch
from made_up.adapter_files import MODULE, PREFIX, base, factors, write
from safetensors.torch import save_file

from tsv_bench.state_dicts.open_vectors import open_task_vector
from tsv_bench.state_dicts.state_dict import open_state_dict


def opened(folder):
    pretrained = open_state_dict(folder.parent / "base.safetensors")
    return open_task_vector(pretrained, open_state_dict(folder))


def product():
    a, b = factors().values()
    return b @ a


WEIGHT = f"{MODULE}.weight"
REFUSED = {
    "gives no rank": ({}, {"r": 0}, "says r=0"),
    "other rank": ({}, {"r": 3}, "of rank 2, and its adapter_config.json says 3"),
    "module of no such model": (factors("layers.7.q"), {}, "changes 'layers.7.q'"),
    "shape": (factors(m=5), {}, "do not make a matrix of (6, 4)"),
    "ranks of two factors": (
        factors() | dict([list(factors(r=3).items())[1]]), {}, "do not make a matrix of (6, 4)",
    ),
    "copy of more tokens": (
        factors() | {f"{PREFIX}embed_tokens.base_layer.weight": torch.zeros(10, 4)}, {}, "(10, 4)",
    ),
    "head of its own": (
        factors() | {f"{PREFIX}score.weight": torch.zeros(2, 4)}, {}, "holds 'base_model.model.sco",
    ),
    "more tokens": (
        factors() | {f"{PREFIX}embed_tokens.weight": torch.zeros(10, 4)}, {}, "(10, 4)",
    ),
    "half": ({f"{PREFIX}{MODULE}.lora_A.weight": torch.zeros(2, 4)}, {}, "one of two factors"),
    "dora without norms": ({}, {"use_dora": True}, "lacks a lora_magnitude_vector"),
    "norms without dora": (
        factors() | {f"{PREFIX}{MODULE}.lora_magnitude_vector": torch.ones(6)}, {}, "use_dora=False"
    ),
    "tokens out of range": (
        factors()
        | {f"{PREFIX}embed_tokens.token_adapter.trainable_tokens_delta": torch.zeros(1, 4)},
        {"trainable_token_indices": [9]}, "for 1 trainable_token_indices",
    ),
    "several": (
        {f"{MODULE}.lora_A.{one}.weight": torch.zeros(2, 4) for one in "xy"}, {}, "2 adapters, x, y"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case, tmp_path):
    tensors, settings, message = REFUSED[case]
    write(tmp_path / "adapter", tensors or None, **settings)
    with pytest.raises(ValueError) as error:
        opened(tmp_path / "adapter")
    assert message in str(error.value)


def test_quantized_base_is_refused(tmp_path):
    folder = write(tmp_path / "adapter")
    state = base() | {WEIGHT: torch.zeros(6, 4, dtype=torch.uint8)}
    save_file(state, tmp_path / "base.safetensors")
    with pytest.raises(ValueError, match="Is that one quantized"):
        opened(folder)


def test_adapter_without_its_configuration_is_refused(tmp_path):
    folder = write(tmp_path / "adapter")
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="no adapter_config.json beside it"):
        opened(folder)


def test_folder_with_a_whole_model_too_is_refused(tmp_path):
    folder = write(tmp_path / "adapter")
    save_file(base(), folder / "model.safetensors")
    with pytest.raises(ValueError, match="an adapter, adapter_model.safetensors, and a whole mod"):
        opened(folder)


def test_what_training_leaves_beside_an_adapter_is_not_read(tmp_path):
    folder = write(tmp_path / "adapter")
    torch.save({"lr": torch.ones(1)}, folder / "optimizer.pt")
    (folder / "training_args.bin").write_bytes(b"no weights")
    torch.testing.assert_close(opened(folder)[WEIGHT], product())


def test_file_alone_is_read_with_the_configuration_beside_it(tmp_path):
    folder = write(tmp_path / "adapter", lora_alpha=6)
    pretrained = open_state_dict(tmp_path / "base.safetensors")
    found = open_task_vector(pretrained, open_state_dict(folder / "adapter_model.safetensors"))
    torch.testing.assert_close(found[WEIGHT], 3 * product())


def test_state_dict_with_the_adapters_name_in_it_is_read(tmp_path):
    tensors = {key.replace(".weight", ".mine.weight"): t for key, t in factors().items()}
    tensors |= {
        f"{PREFIX}norm.original_module.weight": torch.zeros(4),
        f"{PREFIX}norm.modules_to_save.mine.weight": base()["norm.weight"] + 1,
    }
    found = opened(write(tmp_path / "adapter", tensors))
    torch.testing.assert_close(found[WEIGHT], product())
    torch.testing.assert_close(found["norm.weight"], torch.ones(4))


@pytest.mark.parametrize("prefix", ["transformer.", "model.model."])
def test_names_behind_a_prefix_are_found(prefix, tmp_path):
    found = opened(write(tmp_path / "adapter", factors(prefix + MODULE)))
    torch.testing.assert_close(found[WEIGHT], product())
    folder = write(tmp_path / "other" / "adapter")
    behind = {prefix + name: tensor for name, tensor in base().items()}
    save_file(behind, tmp_path / "other" / "base.safetensors")
    torch.testing.assert_close(opened(folder)[prefix + WEIGHT], product())


def test_biases_that_mergekit_writes_are_added_and_said(tmp_path, caplog):
    bias = torch.arange(6.0)
    tensors = factors() | {f"{PREFIX}{MODULE}.lora_B.bias": bias}
    found = opened(write(tmp_path / "adapter", tensors))
    torch.testing.assert_close(found[f"{MODULE}.bias"], bias, rtol=0, atol=1e-6)
    assert "lora_bias is not set" in caplog.text


@pytest.mark.parametrize("transposed", [False, True])
def test_square_matrix_is_stored_as_the_others_are(transposed, tmp_path):
    m, n = (4, 6) if transposed else (6, 4)
    square = factors("layers.0.square", m=4, seed=2)
    a, b = square.values()
    folder = write(tmp_path / "adapter", factors(m=m, n=n) | square, fan_in_fan_out=not transposed)
    expected = (b @ a).mT if transposed else b @ a
    torch.testing.assert_close(opened(folder)["layers.0.square.weight"], expected)
    alone = write(tmp_path / "alone" / "adapter", square, fan_in_fan_out=transposed)
    torch.testing.assert_close(opened(alone)["layers.0.square.weight"], expected)


def test_copy_of_a_frozen_table_that_was_rounded_is_no_change(tmp_path):
    table = base()["embed_tokens.weight"].half()
    table[3] += 1
    key = f"{PREFIX}embed_tokens.base_layer.weight"
    found = opened(write(tmp_path / "adapter", factors() | {key: table}))["embed_tokens.weight"]
    assert not found[[0, 1, 2, 4, 5, 6, 7, 8]].any()
    torch.testing.assert_close(found[3], torch.ones(4), rtol=0, atol=3e-3)  # half precision


def test_half_precision_base_gets_the_delta_in_full_precision(tmp_path):
    folder = write(tmp_path / "adapter", lora_alpha=1e-4)
    save_file({n: t.bfloat16() for n, t in base().items()}, tmp_path / "base.safetensors")
    found = opened(folder)[WEIGHT]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, 5e-5 * product())


def test_more_directions_than_a_matrix_has_sides_are_not_counted(tmp_path):
    found = opened(write(tmp_path / "adapter", factors(r=8), r=8))
    assert found.factor_rank(WEIGHT) == 4


@pytest.mark.parametrize("indices", [[3], {"tokens": [8], "embed_tokens": [3]}])
def test_rows_of_trained_tokens_are_found_wherever_a_part_begins(indices, tmp_path):
    name, row = "embed_tokens.weight", torch.arange(4.0)
    trained = {f"{PREFIX}embed_tokens.token_adapter.trainable_tokens_delta": row[None]}
    folder = write(tmp_path / "adapter", factors() | trained, trainable_token_indices=indices)
    found, table = opened(folder), base()[name]
    for start, stop in ((3, 5), (2, 4), (0, 9)):
        rows = found.rows(name, start, stop)
        torch.testing.assert_close(rows[3 - start], row - table[3], rtol=0, atol=1e-6)
    assert not found.rows(name, 0, 3).any() and not found.rows(name, 4, 9).any()


def test_config_is_json(tmp_path):
    folder = write(tmp_path / "adapter")
    (folder / "adapter_config.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="not a whole configuration"):
        opened(folder)
