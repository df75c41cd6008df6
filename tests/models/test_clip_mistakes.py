"""Messages about CLIP weights and architectures that do not fit each other."""

import pytest
import torch
from made_up import backbones
from made_up.backbones import load
from safetensors.torch import save_file

from tsv_bench.models import clip

PROMPTS = ["a photo of a cat."]


@pytest.fixture(scope="module")
def small():
    return backbones.clip()


@pytest.fixture
def path(small, tmp_path):
    return backbones.save(small, tmp_path / "clip")


def test_plain_gelu_is_refused(small, path):
    """open_clip loads the same file into the plain architecture; its features are wrong."""
    plain = backbones.clip(backbones.PLAIN)
    plain.load_state_dict(small.state_dict())
    images = torch.randn(3, 3, 32, 32)
    assert (plain.encode_image(images) - small.encode_image(images)).abs().max() > 1e-3
    message = (
        "architecture 'small' computes GELU at transformer.resblocks.0.mlp.gelu, OpenAI's weights "
        "need QuickGELU.*backbone.load.architecture=small-quickgelu"
    )
    with pytest.raises(ValueError, match=message):
        load(path, backbones.PLAIN)


def test_one_wrong_activation_is_refused(small):
    tower = backbones.clip().visual
    clip.check_quick_gelu(tower, backbones.SMALL)
    tower.transformer.resblocks[1].mlp.gelu = torch.nn.GELU(approximate="tanh")
    with pytest.raises(ValueError, match="computes GELU at transformer.resblocks.1.mlp.gelu"):
        clip.check_quick_gelu(tower, backbones.SMALL)


def test_plain_gelu_in_the_text_tower_is_refused(path, monkeypatch):
    backbone, build = load(path), clip.build_clip
    monkeypatch.setattr(clip, "build_clip", lambda _: build(backbones.PLAIN))
    with pytest.raises(ValueError, match="need QuickGELU"):
        backbone.encode_text(PROMPTS)


def test_other_hash_is_refused(path):
    message = f"has sha256 [0-9a-f]{{64}}, conf/backbone/small.yaml expects {64 * 'a'}.*sha256=null"
    with pytest.raises(ValueError, match=message):
        load(path, sha256=64 * "a")


def test_another_backbones_weights_are_refused(tmp_path):
    other = backbones.save(backbones.clip(backbones.OTHER), tmp_path / "other")
    message = "it holds 'visual.transformer.resblocks.2.*', which that has not \\(12 such\\)"
    with pytest.raises(ValueError, match=message):
        load(other)
    smaller = backbones.save(backbones.clip(), tmp_path / "smaller")
    message = "'visual.transformer.resblocks.2.*' is not in it \\(12 such\\), its first is '"
    with pytest.raises(ValueError, match=message):
        load(smaller, backbones.OTHER)


def test_weights_of_another_backbone_of_the_paper_are_named(tmp_path):
    """Both differ in two shapes alone, and only the header is read."""
    path = backbones.save_shapes("ViT-B-16", tmp_path / "b16.safetensors")
    message = (
        r"'visual.positional_embedding' is \[197, 768\], expected \[50, 768\] \(2 such\). "
        r"These are weights of ViT-B-16-quickgelu: choose that backbone"
    )
    with pytest.raises(ValueError, match=message):
        load(path, "ViT-B-32-quickgelu")


def test_state_dicts_that_are_no_clip_are_refused(small, tmp_path):
    lacking = backbones.save(small, tmp_path / "lacking", visual__proj=None)
    with pytest.raises(ValueError, match=r"'visual.proj' is not in it \(1 such\)"):
        load(lacking)
    save_file(small.visual.state_dict(), tmp_path / "tower.safetensors")
    with pytest.raises(ValueError, match=r"is not in it \(\d+ such\), its first is 'class_emb"):
        load(tmp_path / "tower.safetensors")


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_truncated_weights_are_named(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"{path} is not a whole safetensors file"):
        load(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*nothing.safetensors"):
        load(tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError, match="no checkpoint at mine/clip.safetensors"):
        load("mine/clip.safetensors")  # not taken for a repository


@pytest.mark.parametrize("architecture", ["ViT-B-33", "hf-hub:timm/vit_base_patch32_clip_224"])
def test_unknown_architecture_is_named_and_not_looked_for(path, architecture):
    with pytest.raises(ValueError, match=f"unknown architecture '{architecture}'.* ViT-B-32-quick"):
        load(path, architecture)


@pytest.mark.parametrize("architecture", ["RN50-quickgelu", "coca_ViT-B-32", "ViT-B-16-SigLIP"])
def test_other_kinds_of_networks_are_refused(path, architecture):
    with pytest.raises(ValueError, match=f"'{architecture}' is another kind of network"):
        load(path, architecture)
