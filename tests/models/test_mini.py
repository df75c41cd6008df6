"""The embedded backbone: its file, its vocabulary and its geometry."""

import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from omegaconf import OmegaConf
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms import Compose

from tsv_bench.models import build_mini, load_mini, normalize, save_mini
from tsv_bench.models.mini import FOLDER, ROWS, TOKENS, compact_tokens

CONF = Path(__file__).resolve().parents[2] / "conf"
TEXTS = ["a red tint", "a green tint", "a blue tint", "red", "green", "blue"]


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """Return an untrained mini that knows the words of TEXTS, and its file."""
    torch.manual_seed(5)
    ids, _ = compact_tokens("mini", TEXTS)
    model = build_mini("mini", len(ids)).eval()
    path = tmp_path_factory.mktemp("mini") / "mini.safetensors"
    save_mini(model, ids, path, {"seed": "5"})
    return model, ids, path


def read(path, sha256=None, architecture="mini"):
    return load_mini(
        name="mini", label="Mini", architecture=architecture, weights=str(path), sha256=sha256
    )


def test_open_clip_builds_the_mini_with_its_whole_vocabulary():
    model = open_clip.create_model("mini")
    assert model.token_embedding.weight.shape[0] == 49408
    assert model.visual.image_size == (30, 30)
    visual = sum(param.numel() for param in model.visual.parameters())
    # 8 MB as float16; the text tower is a tenth of it.
    assert 1e6 < visual < 3.5e6


def test_shipped_weights_are_the_ones_the_configuration_names():
    settings = OmegaConf.load(CONF / "backbone" / "mini.yaml").load
    path = FOLDER / settings.weights
    assert path.stat().st_size <= 8e6
    if settings.sha256 is not None:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == settings.sha256
    backbone = load_mini(
        **{name: settings[name] for name in ("architecture", "weights", "sha256")},
        name="mini",
        label="Mini",
    )
    assert backbone.image_size == 30 and 1 < backbone.logit_scale < 101
    assert all(param.isfinite().all() for param in backbone.pretrained.values())


def test_every_prompt_of_the_suite_is_in_the_shipped_vocabulary():
    settings = OmegaConf.load(CONF / "backbone" / "mini.yaml").load
    ids = load_file(FOLDER / settings.weights)[TOKENS]
    prompts = []
    for path in sorted((CONF / "task").glob("*.yaml")):
        task = OmegaConf.load(path)[path.stem]
        if not task.source._target_.endswith("HubData"):
            prompts += [t.format(name) for t in task.templates for name in task.class_names]
    needed, _ = compact_tokens("mini", prompts)
    assert set(needed.tolist()) <= set(ids.tolist())


def test_round_trip_keeps_the_weights_to_float16(mini):
    model, ids, path = mini
    loaded = read(path)
    assert loaded.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, param in model.visual.state_dict().items():
        assert loaded.pretrained[name].dtype == torch.float32
        assert torch.equal(loaded.pretrained[name], param.half().float()), name
    assert loaded.logit_scale == pytest.approx(math.exp(model.logit_scale.half().item()))
    # Text too, through the compact vocabulary. Rounding 4 layers of weights to float16 (2e-3
    # measured relative to features of about 1).
    tokens = torch.searchsorted(ids, open_clip.get_tokenizer("mini")(TEXTS))
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.encode_text(TEXTS), model.encode_text(tokens), rtol=0, atol=0.02
        )


def test_compact_vocabulary_computes_what_the_whole_one_does(mini):
    """With its rows put back in place the model is open_clip's, with open_clip's tokens."""
    _, ids, path = mini
    tensors = load_file(path)
    whole = open_clip.create_model("mini").eval()
    state = {name: t.float() for name, t in tensors.items() if name not in (ROWS, TOKENS)}
    embedding = torch.zeros_like(whole.token_embedding.weight)
    embedding[tensors[TOKENS].long()] = tensors[ROWS].float()
    whole.load_state_dict({**state, "token_embedding.weight": embedding})
    images = torch.randn(3, 3, 30, 30)
    loaded = read(path)
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("mini")(TEXTS)
        torch.testing.assert_close(loaded.encode_text(TEXTS), whole.encode_text(tokens))
        torch.testing.assert_close(loaded.visual(images), whole.encode_image(images))


def test_loaded_tower_is_frozen_and_evaluates(mini):
    loaded = read(mini[2])
    assert not loaded.visual.training
    assert not any(param.requires_grad for param in loaded.visual.parameters())
    assert loaded.pretrained["proj"].data_ptr() == loaded.visual.proj.data_ptr()  # not copied


def test_other_hash_is_refused(mini):
    found = hashlib.sha256(mini[2].read_bytes()).hexdigest()
    read(mini[2], sha256=found)
    message = f"mini.safetensors has sha256 {found[:12]}.* expects {64 * 'a'!s:.12}"
    with pytest.raises(ValueError, match=message):
        read(mini[2], sha256=64 * "a")


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_truncated_weights_are_named(mini, tmp_path, kept):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(mini[2].read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"{path} is not a whole safetensors file"):
        read(path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        read(tmp_path / "nothing.safetensors")


def test_weights_of_something_else_are_refused(mini, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="was not written by tsv-pretrain"):
        read(path)

    tensors = load_file(mini[2])
    del tensors["visual.proj"]
    save_file(tensors, path)
    with pytest.raises(ValueError, match="does not fit architecture 'mini'.*\n.*visual.proj"):
        read(path)
    save_file({**tensors, "visual.proj": torch.zeros(3, 4)}, path)
    with pytest.raises(ValueError, match="does not fit architecture 'mini'.*\n.*visual.proj"):
        read(path)


def test_unknown_architecture_is_named():
    with pytest.raises(ValueError, match="unknown architecture 'maxi': there is no maxi.json"):
        build_mini("maxi", 5)


def test_word_that_pretraining_never_saw_is_named(mini):
    loaded = read(mini[2])
    with pytest.raises(ValueError, match="never shown the word piece 'zebra' .*'a zebra tint'"):
        loaded.encode_text(["a red tint", "a zebra tint"])


@pytest.fixture(scope="module")
def embedded(mini):
    return read(mini[2])


@pytest.mark.parametrize("image_size", [30, 224])  # the embedded backbone's and the paper's
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
@pytest.mark.parametrize("size", [(30, 30), (80, 47), (19, 64), (31, 30), (500, 375)])
def test_pixels_are_those_of_open_clips_own_transform(embedded, image_size, mode, size):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 4), dtype=np.uint8))
    image = image.convert(mode) if mode != "CMYK" else image.convert("RGB").convert(mode)
    own = open_clip.image_transform(
        image_size, is_train=False, mean=OPENAI_DATASET_MEAN, std=OPENAI_DATASET_STD
    )
    pixels = dataclasses.replace(embedded, image_size=image_size).to_pixels(image)
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, image_size, image_size)
    before_normalizing = Compose(own.transforms[:-1])(image)
    assert torch.equal(pixels.float() / 255, before_normalizing)
    # Scaled by 255 in another order: one float32 rounding of values up to 2.2.
    torch.testing.assert_close(normalize(pixels[None])[0], own(image), rtol=1e-6, atol=1e-6)
