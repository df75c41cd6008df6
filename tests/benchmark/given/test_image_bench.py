"""The bench: a network as a function of its weights, and what passed through it counted."""

import pytest
import torch
from made_up.backbones import SMALL, clip
from safetensors.torch import save_file

from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.models import load_clip, normalize
from tsv_bench.observation.gather import linear_inputs


@pytest.fixture
def bench(tmp_path):
    save_file(clip().state_dict(), tmp_path / "clip.safetensors")
    weights = str(tmp_path / "clip.safetensors")
    backbone = load_clip(name="s", label="S", architecture=SMALL, weights=weights)
    torch.manual_seed(0)
    images = {"a": torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)}
    heads = {"a": torch.randn(5, 24)}
    bench = ImageBench(backbone, heads, images, None, device="cpu", seed=3)
    return bench, backbone.visual


def moved(bench):
    generator = torch.Generator().manual_seed(1)
    return {
        name: (p + 0.1 * torch.randn(p.shape, generator=generator)).requires_grad_(True)
        for name, p in bench.pretrained.items()
    }


def test_features_are_those_of_a_network_with_these_weights(bench):
    bench, visual = bench
    weights, images = moved(bench), bench.images("a")
    before = {name: p.clone() for name, p in visual.state_dict().items()}
    found = bench.features(weights, images)
    assert all(torch.equal(before[name], p) for name, p in visual.state_dict().items())
    visual.load_state_dict({name: w.detach() for name, w in weights.items()})
    torch.testing.assert_close(found.detach(), visual(normalize(images)))
    logits = bench.logits("a", found)
    cosines = torch.nn.functional.cosine_similarity(found[:, None], bench.head("a")[None], dim=-1)
    torch.testing.assert_close(logits, cosines * bench.head("a").norm(dim=-1))


def test_blocks_in_turn_make_the_whole_and_gradients_flow_into_all_weights(bench):
    bench, _ = bench
    weights, images = moved(bench), bench.images("a")
    tokens = bench.embed(weights, images)
    for number in range(bench.num_blocks):
        tokens = bench.run_block(weights, number, tokens)
    features = bench.read_out(weights, tokens)
    torch.testing.assert_close(features, bench.features(weights, images))
    features.square().sum().backward()
    assert all(w.grad is not None and w.grad.any() for w in weights.values())


def test_what_passed_is_counted(bench):
    bench, _ = bench
    images = bench.images("a")
    bench.features(bench.pretrained, images)
    assert (bench.forward_passes, bench.backward_passes) == (4, 0)
    bench.features(moved(bench), images)
    tokens = bench.embed(bench.pretrained, images)
    bench.run_block(bench.pretrained, 0, tokens)  # half of the network
    assert (bench.forward_passes, bench.backward_passes) == (10, 4)
    with torch.no_grad():
        bench.features(moved(bench), images)
    assert (bench.forward_passes, bench.backward_passes) == (14, 4)


def test_inputs_of_layers_are_those_of_a_pass(bench):
    bench, visual = bench
    expected = linear_inputs(visual, bench.pretrained, bench.images("a"), ("inputs",), 4)
    found = bench.linear_inputs(
        bench.pretrained, lambda: bench.features(bench.pretrained, bench.images("a"))
    )
    assert set(found) == set(expected.gathered)
    for name in found:
        assert found.gathered(name) == expected.gathered[name]
        torch.testing.assert_close(found[name], expected.statistics("inputs", name))


def test_labels_are_there_only_if_the_yaml_says_so(bench):
    with pytest.raises(ValueError, match="its yaml does not say labels: true"):
        bench[0].labels("a")
