"""CLIP backbones from files and the hub: the right weights, in memory only while in use."""

import logging
import re
import weakref
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from made_up import backbones
from made_up.backbones import load
from omegaconf import OmegaConf
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import save_file
from stand_ins.loopback_hub import LoopbackHub

from tsv_bench import hub
from tsv_bench.models import clip, clip_needs
from tsv_bench.state_dicts.state_dict import StateDict

CONF = Path(__file__).resolve().parents[2] / "conf"
PAPERS = ["vit_b32", "vit_b16", "vit_l14"]
PROMPTS = ["a photo of a cat.", "a centered satellite photo of annual crop land.", "x"]


@pytest.fixture(scope="module")
def small():
    return backbones.clip()


@pytest.fixture
def path(small, tmp_path):
    return backbones.save(small, tmp_path / "clip")


def settings_of(backbone):
    node = OmegaConf.load(CONF / "backbone" / f"{backbone}.yaml")
    return {k: v for k, v in OmegaConf.to_container(node, resolve=True)["load"].items()
            if k != "_target_"}  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
def test_image_and_text_features_are_those_of_open_clip(small, tmp_path, suffix):
    backbone = load(backbones.save(small, tmp_path / "clip", suffix=suffix))
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(backbone.visual(images), small.encode_image(images))
    tokens = open_clip.get_tokenizer(backbones.SMALL)(PROMPTS)
    # Without the padding sums are rounded differently.
    torch.testing.assert_close(
        backbone.encode_text(PROMPTS), small.encode_text(tokens), rtol=1e-5, atol=1e-6
    )
    assert backbone.logit_scale == pytest.approx(np.exp(4.0), rel=1e-6)
    assert backbone.image_size == 32


def test_text_features_do_not_depend_on_the_prompts_beside_them(path, monkeypatch):
    monkeypatch.setattr(clip, "PROMPTS_AT_ONCE", 2)
    backbone = load(path)
    prompts = [*PROMPTS, "a " * 100, "cat"]  # one of them fills the context
    together = backbone.encode_text(prompts)
    alone = torch.cat([backbone.encode_text([prompt]) for prompt in prompts])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_weights_are_float32_frozen_and_not_copied(small, path):
    backbone = load(path)
    expected = small.visual.state_dict()
    assert list(backbone.pretrained) == list(expected)
    for name, tensor in backbone.pretrained.items():
        assert torch.equal(tensor, expected[name]) and tensor.dtype == torch.float32
    assert not any(param.requires_grad for param in backbone.visual.parameters())
    assert not backbone.visual.training
    assert backbone.pretrained["proj"].data_ptr() == backbone.visual.proj.data_ptr()


def test_loading_and_encoding_leave_the_random_numbers_alone(path):
    before = torch.get_rng_state()
    load(path).encode_text(PROMPTS)
    assert torch.equal(torch.get_rng_state(), before)


def test_text_tower_is_read_when_prompts_come_and_gone_when_released(path, monkeypatch):
    read = []
    get = StateDict.__getitem__
    monkeypatch.setattr(StateDict, "__getitem__", lambda s, n: read.append(n) or get(s, n))
    backbone = load(path)
    assert {n for n in read if not n.startswith("visual.")} == {"logit_scale"}
    read.clear()
    first = backbone.encode_text(PROMPTS)
    assert "token_embedding.weight" in read and not any(n.startswith("visual.") for n in read)
    read.clear()
    backbone.encode_text(PROMPTS)
    assert not read  # held

    tower = weakref.ref(backbone.encode_text.__self__._clip)
    assert tower() is not None
    backbone.release_text()
    assert tower() is None
    assert torch.equal(backbone.encode_text(PROMPTS), first) and read  # read again
    backbone.release_text()
    backbone.release_text()


def test_fingerprint_is_of_the_image_tower_whatever_its_file(small, path, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        found = load(path).fingerprint
    assert re.fullmatch("[0-9a-f]{64}", found)
    assert f"Small: image tower of {path}, QuickGELU, sha256 {found}" in caplog.text
    assert load(path, sha256=found).fingerprint == found
    assert load(backbones.save(small, tmp_path / "again", suffix=".pt")).fingerprint == found

    proj = small.visual.proj.clone()
    proj[3, 4] += 1e-6
    one_entry = load(backbones.save(small, tmp_path / "one", visual__proj=proj))
    text = load(backbones.save(small, tmp_path / "text", ln_final__bias=torch.ones(16)))
    assert one_entry.fingerprint != found
    assert text.fingerprint == found and text.text_fingerprint() != load(path).text_fingerprint()
    assert one_entry.text_fingerprint() == load(path).text_fingerprint()


def test_fingerprint_tells_names_and_shapes_apart():
    tensor = torch.arange(6.0)
    variants = [{"a": tensor}, {"b": tensor}, {"a": tensor.view(2, 3)}, {"a": tensor.view(3, 2)}]
    assert len({clip.fingerprint(variant) for variant in variants}) == 4


def test_leftovers_of_openais_own_files_are_ignored(small, tmp_path):
    left = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77)}
    backbone = load(backbones.save(small, tmp_path / "left", **left))
    assert backbone.encode_text(PROMPTS).shape == (3, 24)


def test_a_folder_like_the_hubs_gives_the_file_that_open_clip_takes(small, tmp_path):
    backbones.save(small, tmp_path / "open_clip_model")
    (tmp_path / "model.safetensors").write_bytes(b"of another library")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"the same, pickled")
    assert load(tmp_path).fingerprint == clip.fingerprint(small.visual.state_dict())


@pytest.mark.parametrize("backbone", PAPERS)
def test_papers_backbones_are_openais_with_quick_gelu(backbone):
    settings = settings_of(backbone)
    openai = open_clip.get_pretrained_cfg(settings["architecture"], "openai")
    assert openai["hf_hub"] == settings["weights"] + "/"  # no file name: open_clip's default
    assert openai["quick_gelu"]
    assert (openai["mean"], openai["std"]) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    assert (openai["interpolation"], openai["resize_mode"]) == ("bicubic", "shortest")
    built = clip.build_clip(settings["architecture"])
    clip.check_quick_gelu(built, settings["architecture"])
    assert built.visual.image_size == (224, 224)
    size = 4 * sum(param.numel() for param in built.parameters())
    assert settings["num_bytes"] == pytest.approx(size, rel=2e-3)

    (need,) = clip_needs(**settings)
    assert (need.repo, need.kind) == (settings["weights"], "model")
    assert need.what == f"weights of {backbone}" and need.patterns == (HF_SAFE_WEIGHTS_NAME,)
    assert (need.num_bytes, need.licence) == (settings["num_bytes"], "apache-2.0")


def test_weights_of_the_users_own_need_nothing_of_the_hub(path, tmp_path):
    settings = settings_of("vit_b32")
    for weights in [path, tmp_path, tmp_path / "not yet", "mine/clip.pt"]:
        assert clip_needs(**{**settings, "weights": str(weights)}) == []


def test_weights_are_named_until_they_are_fetched_and_then_loaded_offline(
    small, path, tmp_path, monkeypatch
):
    repo = "somebody/small-clip"
    with LoopbackHub(tmp_path / "hub") as loopback:
        files = {"open_clip_model.safetensors": path.read_bytes(), "model.safetensors": "another's"}
        loopback.add("model", repo, files)
        loopback.use(monkeypatch, tmp_path / "home")
        with pytest.raises(OSError, match=f"weights of small .{repo}. is not here.*tsv-fetch"):
            load(repo)
        settings = {"name": "small", "label": "Small", "architecture": backbones.SMALL}
        (need,) = clip_needs(**settings, weights=repo)
        folder = hub.fetch(need, progress=False)
    assert not (folder / "model.safetensors").exists()
    assert load(repo).fingerprint == clip.fingerprint(small.visual.state_dict())
    with pytest.raises(OSError, match="is not here"):
        load(repo, revision="another")


def test_full_size_image_tower_in_half_precision_gives_open_clips_features(tmp_path):
    """The paper's ViT-B/32; its text tower is zeros, which are never read."""
    architecture = settings_of("vit_b32")["architecture"]
    with torch.device("meta"):
        whole = open_clip.CLIP(**open_clip.get_model_config(architecture))
    visual = backbones.full_size_visual(architecture)
    half = {f"visual.{name}": tensor.half() for name, tensor in visual.state_dict().items()}
    text = {
        name: torch.zeros(param.shape, dtype=torch.half)
        for name, param in whole.state_dict().items()
        if not name.startswith("visual.")
    }
    save_file({**half, **text}, tmp_path / "clip.safetensors")
    backbone = load(tmp_path / "clip.safetensors", architecture)
    (tmp_path / "clip.safetensors").unlink()  # 300 MB that pytest would keep
    assert list(backbone.pretrained) == list(visual.state_dict())
    images = torch.randn(2, 3, 224, 224)
    assert torch.equal(backbone.visual(images), visual(images))
