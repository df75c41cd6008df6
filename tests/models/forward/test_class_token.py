"""The last block for the class token alone: the same features with less work."""

import copy

import pytest
import torch
from made_up.backbones import full_size_visual
from made_up.tasks import backbone as tiny

from tsv_bench.models import class_token_only, load_mini


def mini():
    return load_mini(
        name="mini", label="Mini", architecture="mini", weights="mini.safetensors", sha256=""
    ).visual


def inputs(visual, count=2):
    return torch.randn(count, 3, *visual.image_size)


@pytest.mark.parametrize("make", [mini, lambda: full_size_visual("ViT-B-32-quickgelu")])
def test_features_are_the_same_and_the_other_tokens_are_not_computed(make):
    visual, rows = make(), []
    images = inputs(visual)
    expected = visual(images)
    visual.transformer.resblocks[-1].mlp.register_forward_hook(
        lambda module, args, output: rows.append(output.shape[1])
    )
    with class_token_only(visual):
        found = visual(images)
    assert (found - expected).norm() / expected.norm() < 1e-5
    assert rows == [1]
    torch.testing.assert_close(visual(images), expected, rtol=0, atol=0)
    assert rows[1] > 1 and "forward" not in vars(visual.transformer.resblocks[-1])


def test_it_is_undone_after_an_error():
    visual = mini()
    with pytest.raises(KeyError), class_token_only(visual):
        raise KeyError
    assert "forward" not in vars(visual.transformer.resblocks[-1])


def other_towers():
    average = copy.deepcopy(mini())
    average.pool_type = "avg"
    tokens = copy.deepcopy(mini())
    tokens.output_tokens = True
    return {"average": average, "tokens": tokens, "linear": tiny().visual}


@pytest.mark.parametrize("kind", other_towers())
def test_towers_that_pool_otherwise_are_left_alone(kind):
    visual = other_towers()[kind]
    images = torch.randn(2, 3, *getattr(visual, "image_size", (tiny().image_size,) * 2))
    expected = visual(images)
    with class_token_only(visual):
        found = visual(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
