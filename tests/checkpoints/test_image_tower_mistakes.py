"""Files that are no image tower of the backbone: recognized by names and shapes, unread."""

import re
from functools import cache

import pytest
import torch
import transformers
from made_up import tower_files as saved
from made_up.backbones import OTHER, SMALL
from safetensors.torch import save_file

from tsv_bench.checkpoints.image_tower import image_tower, naming_of
from tsv_bench.models.clip import build_clip
from tsv_bench.state_dicts.state_dict import open_state_dict

PAPERS = {
    "ViT-B-32-quickgelu": (
        "ViT-B/32 (width 768, patches of 32 x 32, 12 blocks, 50 positions)"
    ),
    "ViT-B-16-quickgelu": (
        "ViT-B/16 (width 768, patches of 16 x 16, 12 blocks, 197 positions)"
    ),
    "ViT-L-14-quickgelu": (
        "ViT-L/14 (width 1024, patches of 14 x 14, 24 blocks, 257 positions)"
    ),
}  # fmt: skip


@cache
def shapes_of(architecture):
    return build_clip(architecture).visual.state_dict()


def names_of(naming, architecture=SMALL):
    """A file's content: zeros, which take no memory."""
    if naming == "hugging_face":
        with torch.device("meta"):
            config = saved.vision_config(architecture)
            model = transformers.CLIPVisionModelWithProjection(config)
        return saved.zeros(model.state_dict())
    prefix = {"visual": "", "open_clip": "visual.", "paper": "model.visual."}[naming]
    state = {prefix + name: param for name, param in shapes_of(architecture).items()}
    return saved.zeros(state)


def opened(content, tmp_path):
    torch.save(content, tmp_path / "file.pt")
    return open_state_dict(tmp_path / "file.pt")


def refused(content, tmp_path, architecture=SMALL):
    """Return the message that a user reads."""
    with pytest.raises(ValueError) as error:
        image_tower(opened(content, tmp_path), shapes_of(architecture))
    assert str(error.value).startswith(f"{tmp_path / 'file.pt'}")
    return str(error.value)


@pytest.mark.parametrize("naming", ["visual", "open_clip", "paper", "hugging_face"])
@pytest.mark.parametrize("other", PAPERS)
def test_weights_of_another_of_the_papers_backbones_are_named(naming, other, tmp_path):
    content = names_of(naming, other)
    for architecture in PAPERS:
        if architecture == other:
            assert image_tower(opened(content, tmp_path), shapes_of(architecture))
        else:
            told = refused(content, tmp_path, architecture)
            assert f"Its shapes are those of {PAPERS[other]}. Were both written by" in told


@pytest.mark.parametrize("naming", ["visual", "open_clip", "paper", "hugging_face"])
def test_weights_of_no_backbone_of_the_paper_are_described(naming, tmp_path):
    told = refused(names_of(naming, OTHER), tmp_path)
    assert (
        "Its shapes are none of the paper's backbones (width 32, patches of 8 x 8, 3 blocks, 17 "
        "positions)"
    ) in told
    assert "and it holds" not in told and "more, which the backbone has not" in told


def test_a_naming_that_is_not_known_is_told_by_its_first_names(tmp_path):
    content = {f"{name}.weight": torch.zeros(1) for name in "abcde"}
    told = refused(content, tmp_path)
    assert "'a.weight', 'b.weight', 'c.weight' and 2 more" in told
    for expected in ("'class_embedding'", "'visual.class_embedding'", "'model.visual.class_e"):
        assert expected in told
    assert "Rename them" in told


@pytest.mark.parametrize(
    ("naming", "key", "beside"),
    [
        ("visual", "conv1.weight", {"head.weight": 1}),
        ("visual", "ln_post.bias", {"logit_scale": 1}),
        ("open_clip", "visual.proj", {"visual.head.weight": 1, "logit_scale": 1}),
        ("open_clip", "visual.proj", {"classifier": 1, "transformer.resblocks.0.ln_1.bias": 1}),
        ("paper", "model.visual.proj", {"model.visual.mask": 1, "model.ln_final.bias": 1}),
        ("paper", "model.visual.ln_pre.bias", {"head.weight": 1, "model.logit_scale": 1}),
        ("hugging_face", "visual_projection.weight", {"head": 1, "logit_scale": 1}),
        ("hugging_face", "vision_model.encoder.layers.1.self_attn.v_proj.bias", {"pooler.b": 1}),
    ],
)
def test_missing_and_unknown_names_are_told(naming, key, beside, tmp_path):
    """The text tower's parameters are known, if the naming has any."""
    content = names_of(naming)
    first = next(iter(beside))
    key = key if key in content else key.removeprefix("vision_model.")
    tensor = content.pop(key)
    told = refused({**content, **dict.fromkeys(beside, torch.zeros(3))}, tmp_path)
    frozen = key == "visual_projection.weight"  # which may be left out
    assert f"in the naming {naming!r}" in told
    assert (f"it lacks {key!r} and it holds {first!r}, which the" in told) != frozen
    assert f"it holds {first!r}, which the backbone has not" in told

    told = refused({**content, first: tensor, key: tensor}, tmp_path)
    assert "it lacks" not in told and f"it holds {first!r}, which" in told
    assert "A head is left out: heads are made of class names." in told


@pytest.mark.parametrize(
    ("naming", "key", "shape", "expected"),
    [
        ("visual", "proj", (24, 32), (32, 24)),
        ("paper", "model.visual.conv1.weight", (32, 3, 8, 4), (32, 3, 8, 8)),
        ("hugging_face", "visual_projection.weight", (32, 24), (24, 32)),
        ("hugging_face", "vision_model.encoder.layers.0.self_attn.k_proj.bias", (96,), (32,)),
    ],
)
def test_a_shape_that_differs_is_shown_beside_the_expected_one(
    naming, key, shape, expected, tmp_path
):
    content = names_of(naming)
    key = key if key in content else key.removeprefix("vision_model.")
    told = refused(content | {key: torch.zeros(shape)}, tmp_path)
    shown = re.escape(f"{key!r} is {expected} in the pretrained and {shape} in the fine-tuned one")
    assert re.search(f"has different shapes than the backbone: {shown} .1 such.", told)


def test_weights_of_a_backbone_of_another_make(tmp_path):
    """A tower without patches gets no guess."""
    torch.save({"linear.weight": torch.zeros(2, 3)}, tmp_path / "file.pt")
    state = open_state_dict(tmp_path / "file.pt")
    pretrained = {"linear.weight": torch.zeros(2, 4)}
    assert naming_of(state, pretrained) == "visual"
    with pytest.raises(ValueError, match=r"is \(2, 4\) in the pretrained and \(2, 3\).*such\). We"):
        image_tower(state, pretrained)
    save_file({"linear.weight": torch.ones(2, 4)}, tmp_path / "whole.safetensors")
    whole = open_state_dict(tmp_path / "whole.safetensors")
    assert image_tower(whole, pretrained) is whole
