"""Adapters given to a merge: alone, with their base, among whole checkpoints."""

import json

import pytest
import torch
from made_up.adapter_files import base, factors, write
from made_up.merges import merge, same
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tsv_bench.files import sha256

WEIGHT = "layers.0.q.weight"


def product(seed, scale=1.0):
    a, b = factors(seed=seed).values()
    return scale * (b @ a)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "a", factors(seed=1))
    write(tmp_path / "b", factors(seed=2), lora_alpha=6)
    return tmp_path


def merged(folder, *arguments, **tuned):
    said = merge(folder, "out.safetensors", *arguments, tuned=tuned)
    return load_file(folder / "out.safetensors"), said


def test_adapters_are_merged_and_nothing_else_changes(folder):
    found, _ = merged(
        folder, "method=weight_average", a="a", b="base.safetensors+b/adapter_model.safetensors"
    )
    expected = base()
    expected[WEIGHT] += (product(1) + product(2, 3.0)) / 2
    torch.testing.assert_close(found.pop(WEIGHT), expected.pop(WEIGHT))
    same(found, expected)
    with safe_open(folder / "out.safetensors", "pt") as file:
        hashes = json.loads(file.metadata()["tsv_bench"])["inputs"]
    for task in "ab":
        assert hashes[task] == {path.name: sha256(path) for path in (folder / task).iterdir()}


def test_adapter_and_whole_checkpoint_are_merged(folder):
    whole = base()
    whole["norm.weight"] += 1
    save_file(whole, folder / "whole.safetensors")
    found, _ = merged(folder, "method=task_arithmetic", "alpha=1", a="a", w="whole.safetensors")
    torch.testing.assert_close(found[WEIGHT], base()[WEIGHT] + product(1))
    torch.testing.assert_close(found["norm.weight"], whole["norm.weight"])


def test_adapter_as_pretrained_is_refused(folder):
    with pytest.raises(AssertionError, match="a is an adapter. pretrained= is the whole model"):
        merge(folder, "out.safetensors", base="a", tuned={"b": "b"})


def test_missing_adapter_is_said(folder):
    with pytest.raises(AssertionError, match=r"b: no checkpoint at base.safetensors\+none"):
        merged(folder, a="a", b="base.safetensors+none")


def test_adapters_that_name_other_models_are_said(folder, caplog):
    for task, name in {"a": "org/one", "b": "org/two"}.items():
        path = folder / task / "adapter_config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": name})
        )
    _, said = merged(folder, "method=weight_average", a="a", b="b")
    assert "b is an adapter of org/two, a of org/one" in said.out + said.err


def test_two_scales_of_one_adapter_are_no_repetition(folder):
    write(folder / "c" / "a", factors(seed=1), lora_alpha=4)
    _, said = merged(folder, "method=weight_average", a="a", b="c/a")
    assert "same checkpoint" not in said.out + said.err


def test_compressed_files_of_adapters_hold_their_factors(folder):
    merge(folder, "low", "method=tsv_compress", "method.rank_fraction=1", "write=compressed",
          tuned={"a": "a", "b": "b"})  # fmt: skip
    found = load_file(folder / "low" / "b.safetensors")
    assert set(found) == {f"{WEIGHT}.{part}" for part in ("u", "s", "vh")}
    assert found[f"{WEIGHT}.s"].shape == (2,)  # the adapter's rank, not that of the matrix
    u, s, vh = (found[f"{WEIGHT}.{part}"] for part in ("u", "s", "vh"))
    torch.testing.assert_close(u * s @ vh, product(2, 3.0), rtol=0, atol=1e-5)
