"""An alpha a layer: by patterns, by depth, and in the files."""

import json

import pytest
import torch
from made_up.merges import made, merge, pretrained, write_checkpoints
from stand_ins.commands import tsv

from tsv_bench.merging.scaling.layer_alphas import LayerAlphas, interpolated
from tsv_bench.state_dicts.state_dict import open_state_dict

NAMES = ["embed", *(f"blocks.{d}.{k}.w" for d in range(5) for k in ("attn", "mlp")), "head"]


def test_the_first_pattern_that_fits_counts():
    alphas = LayerAlphas(default=0.3, patterns={"*.1.*": 9, "attn": 0.5, "blocks.3*": 0.7})
    found = alphas.of(NAMES)
    assert found["embed"] == found["head"] == found["blocks.0.mlp.w"] == 0.3
    assert found["blocks.1.attn.w"] == found["blocks.1.mlp.w"] == 9
    assert found["blocks.3.attn.w"] == 0.5 and found["blocks.3.mlp.w"] == 0.7


def test_depth_interpolates_and_leaves_what_is_outside_of_blocks():
    found = LayerAlphas(default=3, by_depth=[0.2, 1.0]).of(NAMES)
    assert [found[f"blocks.{d}.mlp.w"] for d in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert found["embed"] == found["head"] == 3


@pytest.mark.parametrize(("place", "value"), [(0, 1), (0.25, 2), (0.5, 3), (0.75, 1.5), (1, 0)])
def test_values_lie_on_lines_between_those_given(place, value):
    assert interpolated([1, 3, 0], place) == pytest.approx(value)
    assert interpolated([5], place) == 5


def test_files_have_each_layers_alpha(tmp_path):
    write_checkpoints(tmp_path)
    [vector] = made(tmp_path, "task_arithmetic", "vector.safetensors", write="vector")
    arguments = "method=task_arithmetic", "alpha={*in_proj*: 0.5, visual.*: 0}"
    merge(tmp_path, "out.safetensors", *arguments)
    model = open_state_dict(tmp_path / "out.safetensors")
    for name, tensor in pretrained().items():
        alpha = 0.5 if "in_proj" in name else 0 if name.startswith("visual") else 0.3
        expected = tensor + alpha * vector[name] if name in vector else tensor
        torch.testing.assert_close(model[name], expected, rtol=0, atol=1e-6)
    about = json.loads(model.metadata["tsv_bench"])
    patterns = {"*in_proj*": 0.5, "visual.*": 0}
    assert about["alpha"] == {"default": 0.3, "patterns": patterns}


def test_files_have_alphas_by_depth(tmp_path):
    """There is one block, which is the first."""
    write_checkpoints(tmp_path)
    merge(tmp_path, "out.safetensors", "method=task_arithmetic", "alpha_by_depth=[0.2,1.0]")
    merge(tmp_path, "by.safetensors", "method=task_arithmetic", "alpha={blocks.0.*: 0.2}")
    found, expected = (open_state_dict(tmp_path / f"{n}.safetensors") for n in ("out", "by"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alpha={self_attn: 1}"], "the pattern 'self_attn' fits no layer of this model"),
        (
            ["alpha={visual.*: 1, *proj: 1, visual.proj: 2}"],
            "fits no layer that earlier ones leave",
        ),
        (["alpha={visual.*: a}"], "'a' of visual.* is not a number"),
        (["alpha={}"], "names no pattern"),
        (["alpha_by_depth=0.5"], "is not a list of alphas from the first block to the last"),
        (["alpha_by_depth=[1,nan]"], "nan of alpha_by_depth is not a number"),
        (["alpha={visual.*: 1}", "alpha_by_depth=[1,2]"], "give one of them"),
    ],
)
def test_alphas_that_cannot_be(tmp_path, arguments, message):
    write_checkpoints(tmp_path)
    paths = ["pretrained=base.safetensors", "finetuned={a: a.safetensors, b: b.safetensors}"]
    result = tsv(tmp_path, "merge", *paths, "output=out.safetensors", *arguments)
    assert result.code == 1 and message in result.err, result.err


def test_depth_needs_blocks():
    with pytest.raises(ValueError, match="no layer has a number in its name"):
        LayerAlphas(default=1, by_depth=[1, 2]).of(["a", "b"])
