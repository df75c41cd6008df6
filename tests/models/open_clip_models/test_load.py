"""Models of five families load as open_clip loads them, and are fine-tuned and evaluated."""

import logging

import open_clip
import pytest
import torch
import torchvision
from made_up import backbones, open_clip_models
from made_up.open_clip_models import ARCHITECTURES, PREPROCESSING, load
from PIL import Image

from tsv_bench.data.pixels import Split
from tsv_bench.models import normalize
from tsv_bench.models.accuracy import correct_images
from tsv_bench.models.finetuning import Finetuning, finetune
from tsv_bench.models.open_clip_models.load import build, renamed
from tsv_bench.state_dicts.state_dict import open_state_dict

PROMPTS = ["a photo of red signs.", "blue"]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def saved(request, tmp_path_factory):
    """An architecture, open_clip's model of it with random weights, and their file."""
    made = open_clip_models.model(request.param)
    folder = tmp_path_factory.mktemp("weights")
    return request.param, made, open_clip_models.save(made, folder, request.param)


@pytest.fixture(scope="module")
def loaded(saved):
    return load(saved[2], saved[0])


def test_features_are_those_of_open_clip(saved, loaded):
    architecture, made, path = saved
    images = torch.randn(1, 3, loaded.image_size, loaded.image_size)
    assert torch.equal(loaded.visual(images), made.encode_image(images))
    text = ARCHITECTURES[architecture]["text_cfg"]
    if "hf_tokenizer_name" in text:
        made_of = {"context_length": text["context_length"], **text["tokenizer_kwargs"]}
        tokenizer = open_clip.tokenizer.HFTokenizer(str(path.parent), **made_of)
        assert tokenizer(PROMPTS)[0].tolist()[:7] == [3, 4, 5, 6, 9, 1, 0]  # "." is left out
    else:
        tokenizer = open_clip.get_tokenizer(architecture)
    first = loaded.encode_text(PROMPTS)
    assert torch.equal(first, made.encode_text(tokenizer(PROMPTS)))
    loaded.release_text()
    assert torch.equal(loaded.encode_text(PROMPTS), first)
    assert loaded.logit_scale == pytest.approx(made.logit_scale.exp().item())


def test_image_tower_is_fine_tuned_and_evaluated(saved, loaded, tmp_path):
    """Twice the same: no part of a network is dropped at random."""
    architecture, made, _ = saved
    generator = torch.Generator().manual_seed(0)
    size = (4, 3, loaded.image_size, loaded.image_size)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(4) % 2)
    head = torch.nn.functional.normalize(loaded.encode_text(PROMPTS), dim=-1)
    recipe = Finetuning(
        batch_size=4, rate=1e-3, warmup=0.0, weight_decay=0.1, clip=1.0, shift=0
    ).recipe_of_steps(2, 4)
    settings = {"shift": 0, "seed": 0, "label": "", "save_every": 1e9, "device": "cpu"}
    tuned = [
        finetune(loaded.visual, head, split, recipe, resume=tmp_path / "none", **settings)
        for _ in range(2 if architecture == "tiny-convnext" else 1)
    ]
    first, before = tuned[0].state_dict(), loaded.pretrained
    assert list(first) == list(before) and all(t.isfinite().all() for t in first.values())
    matrices = [name for name, tensor in before.items() if tensor.ndim == 2]
    assert matrices and all(not torch.equal(first[name], before[name]) for name in matrices)
    for other in tuned[1:]:
        assert all(torch.equal(t, first[name]) for name, t in other.state_dict().items())
    assert correct_images(tuned[0], head, split, "cpu").shape == (4,)
    assert not [m for m in loaded.visual.modules() if getattr(m, "drop_prob", 0)]


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """(a small ViT of open_clip, its folder)."""
    made, folder = open_clip_models.model("tiny-vit"), tmp_path_factory.mktemp("vit")
    open_clip_models.save(made, folder, "tiny-vit")
    return made, folder


def test_images_are_prepared_as_open_clip_prepares_them(vit, tmp_path):
    """By what the file beside the weights says, or by what the user does."""
    made, folder = vit
    open_clip_models.save(made, tmp_path, "tiny-vit", preprocess_cfg=PREPROCESSING)
    image = Image.fromarray(torch.randint(0, 256, (50, 90, 3), dtype=torch.uint8).numpy())
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(size=32, **PREPROCESSING), is_train=False
    )
    backbones_of = [
        load(tmp_path, "tiny-vit"),
        load(folder, "tiny-vit", preprocessing=PREPROCESSING),
    ]
    for backbone in backbones_of:
        pixels = backbone.to_pixels(image)
        assert backbone.geometry == "squash-bilinear" and pixels.shape == (3, 32, 32)
        found = normalize(pixels[None], backbone.visual)[0]
        torch.testing.assert_close(found, transform(image), rtol=0, atol=1e-6)
    plain = load(folder, "tiny-vit")
    assert plain.geometry == "" and plain.fingerprint != backbones_of[0].fingerprint
    assert backbones_of[0].fingerprint == backbones_of[1].fingerprint
    expected = torchvision.transforms.functional.normalize(
        pixels / 255, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    )
    torch.testing.assert_close(normalize(pixels[None], plain.visual)[0], expected)


def test_activation_is_the_one_that_the_weights_need(vit, tmp_path, caplog):
    made, folder = vit
    caplog.set_level(logging.INFO)
    plain = load(folder, "tiny-vit")
    assert "tiny-vit of " in caplog.text and ", GELU, images shortest" in caplog.text
    quick_model = open_clip_models.model("tiny-vit", force_quick_gelu=True)
    quick_model.load_state_dict(made.state_dict())
    open_clip_models.save(made, tmp_path, "tiny-vit", model_cfg={"quick_gelu": True})
    quick = load(tmp_path, "tiny-vit")
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(quick.visual(images), quick_model.encode_image(images))
    assert not torch.equal(quick.visual(images), plain.visual(images))
    assert quick.fingerprint != plain.fingerprint
    # A file of OpenAI's own tells itself.
    backbones.save(made, tmp_path / "openai", input_resolution=torch.tensor(32))
    with pytest.raises(ValueError, match="computes GELU at .*OpenAI's weights need QuickGELU"):
        load(tmp_path / "openai.safetensors", "tiny-vit")


def test_checkpoint_of_open_clips_training_is_read(vit, tmp_path):
    made, folder = vit
    state = {f"module.{name}": tensor for name, tensor in made.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state}, tmp_path / "epoch_3.pt")
    own = load(tmp_path / "epoch_3.pt", "tiny-vit")
    expected = load(folder, "tiny-vit")
    assert own.fingerprint == expected.fingerprint
    assert own.text_fingerprint() == expected.text_fingerprint()
    assert torch.equal(own.encode_text(PROMPTS), expected.encode_text(PROMPTS))


def test_older_files_have_the_text_tower_among_the_rest(tmp_path):
    model = build(ARCHITECTURES["tiny-eva"], "meta")
    state = {
        name.removeprefix("text."): torch.zeros(()).expand(tensor.shape)
        for name, tensor in model.state_dict().items()
    }
    torch.save(state, tmp_path / "older.pt")
    found = renamed(open_state_dict(tmp_path / "older.pt"), model)
    assert sorted(found) == sorted(model.state_dict())


def test_other_weights_are_refused(vit, tmp_path):
    with pytest.raises(ValueError, match=r"does not fit architecture 'tiny-clipa'.*pretrained=\."):
        load(vit[1], "tiny-clipa")
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(ValueError, match="open_clip_config.json is not what open_clip writes"):
        load(tmp_path, "tiny-vit")


def test_batch_normalization_is_refused():
    vision = {"image_size": 160, "timm_model_name": "test_resnet", "timm_pool": "avg"}
    settings = ARCHITECTURES["tiny-convnext"] | {"vision_cfg": vision}
    with pytest.raises(ValueError, match="batch normalization: statistics of images"):
        build(settings, "meta")
