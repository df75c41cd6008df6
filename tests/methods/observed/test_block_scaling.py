"""Layers of a kind are scaled by their lengths, and computed no more often than they must be."""

import pytest
import torch
from made_up.statistics import grams_of, made_up_inputs
from made_up.vectors import close, randn, read

from tsv_bench import methods
from tsv_bench.methods.observed import block_scaling
from tsv_bench.methods.observed.block_scaling import BlockScaled, kind_of
from tsv_bench.task_vectors.lazy import LazyVector, Part, as_lazy
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.streaming import gather, stream

BLOCKS = 3


def layers():
    found = {"conv1.weight": randn(4, 3, 2, 2), "positions": randn(5, 4)}
    for block in range(BLOCKS):
        found[f"blocks.{block}.attn.weight"] = (block + 1) * randn(4, 4)
        found[f"blocks.{block}.mlp.weight"] = randn(8, 4)
        found[f"blocks.{block}.bias"] = randn(4)
    return found


@pytest.fixture
def counted(monkeypatch):
    """A vector that is scaled, the layers of which it is made, and how often each was computed."""
    whole, computed = layers(), []

    def parts(name):
        def compute(layer):
            computed.append(name)
            return layer.clone()

        return [Part(name, 0, 1, lambda: whole[name], compute)]

    vector = BlockScaled([as_lazy(whole)], parts, Matrices(), exponent=2)
    return vector, whole, computed


def expected(whole, exponent=2):
    scaled = {}
    for name, layer in whole.items():
        like = [x.norm() for n, x in whole.items() if kind_of(n) == kind_of(name)]
        ratio = layer.norm() / (sum(like) / len(like))
        scaled[name] = layer * ratio**exponent if layer.ndim == 2 else layer
    return scaled


def test_a_kind_is_a_layer_of_every_block():
    assert kind_of("model.visual.transformer.resblocks.11.mlp.c_fc.weight") == (
        "model.visual.transformer.resblocks.*.mlp.c_fc.weight"
    )
    assert kind_of("h.3.experts.12.w1") == "h.*.experts.*.w1"
    assert kind_of("conv1.weight") == "conv1.weight"


def test_matrices_of_a_kind_are_scaled_by_their_length_beside_the_mean(counted):
    vector, whole, computed = counted
    torch.testing.assert_close(gather(stream(vector)), expected(whole), **close)
    assert sorted(computed) == sorted(whole)  # each once, as all had room


def test_nothing_is_computed_before_a_layer_is_wanted_and_then_only_its_kind(counted):
    vector, whole, computed = counted
    assert not computed
    vector["conv1.weight"], vector["positions"], vector["blocks.0.bias"]
    assert computed == ["conv1.weight", "positions", "blocks.0.bias"]
    computed.clear()
    vector["blocks.1.attn.weight"]
    assert sorted(computed) == [f"blocks.{block}.attn.weight" for block in range(BLOCKS)]


def test_what_is_wanted_again_is_computed_again_and_is_the_same(counted):
    vector, whole, computed = counted
    first = gather(stream(vector))
    computed.clear()
    torch.testing.assert_close(gather(stream(vector)), first, rtol=0, atol=0)
    assert sorted(computed) == sorted(whole)


def test_without_room_layers_are_computed_twice_and_are_the_same(counted, monkeypatch):
    vector, whole, computed = counted
    monkeypatch.setattr(block_scaling, "KEPT", 40)  # two of the 4 x 4 matrices, or one 8 x 4
    torch.testing.assert_close(gather(stream(vector)), expected(whole), **close)
    again = len(computed) - len(whole)
    assert again >= 2
    assert not vector._kept


def test_an_exponent_of_zero_asks_for_no_lengths(counted):
    _, whole, computed = counted
    vector = BlockScaled(
        [as_lazy(whole)], LazyVector([as_lazy(whole)], lambda n: [
            Part(n, 0, 1, lambda: whole[n], lambda layer: layer)
        ])._parts, Matrices(), exponent=0,
    )  # fmt: skip
    torch.testing.assert_close(dict(vector), whole, rtol=0, atol=0)


def test_layers_of_nothing_stay_nothing(counted):
    vector, whole, _ = counted
    for name in whole:
        whole[name] = torch.zeros_like(whole[name])
    assert not any(layer.any() for layer in gather(stream(vector)).values())


def test_esm_scales_the_layers_of_a_kind_by_directions_and_by_triplets():
    shapes = {
        f"blocks.{block}.{name}": shape
        for block in range(2)
        for name, shape in {"in_proj_weight": (12, 4), "out_proj.weight": (4, 4)}.items()
    }
    vectors = {f"task{t}": {n: randn(*s) for n, s in shapes.items()} for t in range(4)}
    grams = {task: grams_of(x) for task, x in made_up_inputs(shapes, vectors).items()}
    scaled = read(methods.esm(vectors, inputs=grams))["task0"]
    plain = read(methods.esm(vectors, inputs=grams, layer_exponent=0))["task0"]
    torch.testing.assert_close(scaled, expected(plain), **close)
    assert (scaled["blocks.0.out_proj.weight"] - plain["blocks.0.out_proj.weight"]).norm() > 1e-3
