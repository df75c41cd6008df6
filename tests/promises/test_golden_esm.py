"""Parity with the code of arXiv:2602.20208, whose results lie in golden/esm, by the benchmark."""

import importlib.util
from pathlib import Path

import pytest
from golden.compare import GOLDEN
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
FILES = GOLDEN.with_name("esm")
BLOCKS = "model.visual.transformer.resblocks.*."


@pytest.fixture(scope="module")
def parity():
    spec = importlib.util.spec_from_file_location("parity", ROOT / "benchmarks" / "parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(parity, path, monkeypatch, capsys):
    """What the command prints of a file, kind -> difference, and its exit code."""
    monkeypatch.setattr("sys.argv", ["parity.py", "esm", str(path)])
    with pytest.raises(SystemExit) as ended:
        parity.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {line[1]: float(line[0]) for line in lines}, int(ended.value.code)


@pytest.mark.parametrize("name", ["small_enough", "small_padded"])
def test_every_kind_of_tensor_is_that_of_the_released_code(name, parity, monkeypatch, capsys):
    apart, code = printed(parity, FILES / f"{name}.safetensors", monkeypatch, capsys)
    assert code == 0 and max(apart.values()) < 1e-5  # the rounding of their SVDs in float32
    kinds = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    assert {BLOCKS + kind for kind in kinds} | {"model.visual.proj"} <= set(apart)


def test_a_file_with_one_changed_tensor_is_told(parity, monkeypatch, capsys, tmp_path):
    tensors, kind = load_file(FILES / "small_enough.safetensors"), "mlp.c_fc.weight"
    tensors[f"merged:model.visual.transformer.resblocks.1.{kind}"] *= 1.001
    save_file(tensors, tmp_path / "changed.safetensors")
    apart, code = printed(parity, tmp_path / "changed.safetensors", monkeypatch, capsys)
    assert code == 1 and [k for k, d in apart.items() if d > 1e-4] == [BLOCKS + kind]


def test_a_file_of_other_keys_is_told(parity, monkeypatch, tmp_path):
    tensors = load_file(FILES / "small_enough.safetensors")
    save_file({"a": next(iter(tensors.values()))}, tmp_path / "other.safetensors")
    with pytest.raises(SystemExit, match="no keys as pretrained:K, finetuned_T:K and merged:K"):
        parity.differences("esm", tmp_path / "other.safetensors")
