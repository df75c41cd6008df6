"""Parity with the code of arXiv:2602.20208, whose results lie in golden/esm, by the benchmark."""

import subprocess
import sys
from pathlib import Path

import pytest
from golden.compare import GOLDEN
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
FILES = GOLDEN.with_name("esm")


def parity(path):
    """What the benchmark prints of a file, kind -> difference, and its exit code."""
    command = [sys.executable, ROOT / "benchmarks" / "parity.py", "esm", path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return {line[1]: float(line[0]) for line in lines}, done.returncode


@pytest.mark.parametrize("name", ["small_enough", "small_padded"])
def test_every_kind_of_tensor_is_that_of_the_released_code(name):
    apart, code = parity(FILES / f"{name}.safetensors")
    assert code == 0 and max(apart.values()) < 1e-5  # the rounding of their SVDs in float32
    blocks = "model.visual.transformer.resblocks.*."
    kinds = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    assert {blocks + kind for kind in kinds} | {"model.visual.proj"} <= set(apart)


def test_a_file_with_one_changed_tensor_is_told(tmp_path):
    tensors = load_file(FILES / "small_enough.safetensors")
    name = "model.visual.transformer.resblocks.1.mlp.c_fc.weight"
    tensors[f"merged:{name}"] *= 1.001
    save_file(tensors, tmp_path / "changed.safetensors")
    apart, code = parity(tmp_path / "changed.safetensors")
    assert code == 1
    assert [k for k, d in apart.items() if d > 1e-4] == [name.replace(".1.", ".*.")]
