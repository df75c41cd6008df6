"""Architectures and weights are found by name, and what cannot be a backbone is refused."""

import importlib.util

import pytest
from made_up import open_clip_models
from omegaconf import OmegaConf
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from stand_ins.configurations import composed

from tsv_bench.models import open_clip_needs
from tsv_bench.models.open_clip_models.choose import choose
from tsv_bench.models.open_clip_models.load import build
from tsv_bench.models.open_clip_models.preprocessing import prepare

HALVES = (0.5, 0.5, 0.5)
# Architecture, tag -> repository, mean of red, how images are resized, parameters in millions.
KNOWN = {
    ("ViT-B-32", "laion2b_s34b_b79k"): (
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", 0.481, "shortest", 151,
    ),
    ("ViT-L-14", "laion2b_s32b_b82k"): (
        "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", 0.5, "shortest", 428,
    ),
    ("ViT-B-16-SigLIP", "webli"): ("timm/ViT-B-16-SigLIP", 0.5, "squash", 203),
    ("convnext_base", "laion400m_s13b_b51k"): (
        "laion/CLIP-convnext_base-laion400M-s13B-b51K", 0.481, "shortest", 152,
    ),
    ("EVA02-B-16", "merged2b_s8b_b131k"): (
        "timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k", 0.481, "shortest", 150,
    ),
}  # fmt: skip


def needs(architecture, pretrained, **settings):
    return open_clip_needs(
        name="own", label="Own", architecture=architecture, pretrained=pretrained, **settings
    )


@pytest.mark.parametrize(("architecture", "tag"), KNOWN)
def test_published_weights_are_found_and_fit_in_size(architecture, tag):
    repo, mean, resize_mode, millions = KNOWN[architecture, tag]
    chosen = choose("own", architecture, tag, None, None)
    assert (chosen.place.repo, chosen.place.patterns) == (repo, (HF_SAFE_WEIGHTS_NAME,))
    prepared, why = prepare(architecture, tag, {}, {})
    assert prepared.mean[0] == pytest.approx(mean, abs=1e-3) and why == "as open_clip says"
    assert prepared.resize_mode == resize_mode
    model = build(chosen.settings, "meta")
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions
    others = [need.what for need in needs(architecture, tag)[1:]]
    assert others == ["tokenizer of own"] * (architecture == "ViT-B-16-SigLIP")


@pytest.mark.parametrize("size", ["b32", "l14"])
@pytest.mark.parametrize("weights", ["laion2b", "datacomp"])
def test_packaged_yamls_name_published_weights(size, weights):
    name = f"vit_{size}_{weights}"
    load = OmegaConf.to_container(composed("bench", f"backbone={name}").backbone.load, resolve=True)
    assert load.pop("_target_") == "tsv_bench.models.load_open_clip"
    [need] = open_clip_needs(**load)
    assert need.what == f"weights of {name}" and need.repo.startswith("laion/CLIP-ViT-")
    assert not choose(name, load["architecture"], load["pretrained"], None, None).settings[
        "quick_gelu"
    ]


def test_activation_follows_the_tag_where_open_clip_only_warns():
    """Of ViT-B-32, open_clip lists OpenAI's weights, too."""
    for architecture in ("ViT-B-32", "ViT-B-32-quickgelu"):
        assert choose("own", architecture, "openai", None, None).settings["quick_gelu"]


def test_repositories_and_files_of_others(tmp_path):
    [need] = needs("ViT-B-32", "somebody/clip", revision="v1")
    assert (need.repo, need.revision) == ("somebody/clip", "v1")
    assert need.patterns == (HF_SAFE_WEIGHTS_NAME, "open_clip_config.json")
    assert needs("ViT-B-32", "mine/clip.pt") == [] == needs("ViT-B-32", str(tmp_path))
    # A tokenizer beside the weights is taken; else it is fetched.
    [need] = needs("tiny-siglip", str(tmp_path))
    assert (need.what, need.repo) == ("tokenizer of own", "nobody/tokenizer")
    open_clip_models.write_tokenizer(tmp_path)
    assert needs("tiny-siglip", str(tmp_path)) == []


@pytest.mark.parametrize(
    ("architecture", "pretrained", "message"),
    [
        ("ViT-B-33", "openai", "unknown architecture 'ViT-B-33': .* did you mean 'ViT-B-32'"),
        ("RN50", "openai", "'RN50' cannot be a backbone here: .*batch norm.*Choose a ViT"),
        ("MobileCLIP-S1", "datacompdr", "batch normalization, and statistics are no weights"),
        ("coca_ViT-B-32", "x", "also writes captions"),
        ("roberta-ViT-B-32", "x", "its text tower is one of transformers"),
        (
            "ViT-B-32",
            "laion2b_s34b_b79",
            "'laion2b_s34b_b79' is neither a file .*did you mean 'laion2b_s34b_b79k'.*It knows op",
        ),
    ],
)
def test_wrong_names_are_answered_with_right_ones(architecture, pretrained, message):
    with pytest.raises(ValueError, match=message):
        needs(architecture, pretrained)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"means": HALVES}, "unknown key 'means' in .*; did you mean 'mean'"),
        ({"mean": [0.5]}, r"preprocessing.mean=\[0.5\] is not three numbers"),
        ({"interpolation": "cubic"}, "interpolation='cubic' is not one of bicubic, bilinear"),
        ({"resize_mode": "longest"}, "resize_mode='longest' is not one of shortest, squash"),
    ],
)
def test_preprocessing_is_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        choose("own", "ViT-B-32", "openai", None, setting)
        prepare("ViT-B-32", "openai", {}, setting)


def test_preprocessing_of_a_file_is_that_of_its_architecture():
    assert prepare("ViT-B-16-SigLIP", None, {}, {})[0].resize_mode == "squash"
    found, why = prepare("ViT-L-14", None, {}, {"std": HALVES})  # its tags do not agree
    assert found.std == HALVES and found.mean[0] != 0.5 and "preprocessing says" in why
    assert prepare("ViT-L-14", None, {"mean": HALVES}, {})[0].mean == HALVES


def test_a_tokenizer_of_transformers_needs_transformers(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install tsv_bench\[language\]"):
        needs("ViT-B-16-SigLIP", "webli")
