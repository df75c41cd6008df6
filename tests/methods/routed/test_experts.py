"""Experts add their deltas to linear layers, for each image as the gates say."""

import pytest
import torch
import torch.nn.functional as F
from made_up.vectors import close, randn

from tsv_bench.methods.routed.experts import Experts, Noted, bias_of, is_linear

LAYER = "transformer.resblocks.0.mlp.c_fc.weight"
IMAGES, TOKENS, M, N, TASKS, RANK = 4, 3, 6, 5, 2, 2


def experts(kind):
    up, down, biases = randn(TASKS, M, RANK), randn(TASKS, RANK, N), randn(TASKS, M)
    if kind == "factors":
        return Experts({LAYER: (up, down)}, biases={LAYER: biases}), up @ down, biases
    return Experts(deltas={LAYER: up @ down}, biases={LAYER: biases}), up @ down, biases


@pytest.mark.parametrize("kind", ["factors", "deltas"])
def test_each_image_has_its_own_mixture(kind):
    made, deltas, biases = experts(kind)
    x, weight, bias, gates = randn(IMAGES, TOKENS, N), randn(M, N), randn(M), randn(IMAGES, TASKS)
    found = made.linear(lambda name, x: gates)(LAYER, x, weight, bias)
    for image in range(IMAGES):
        own = weight + sum(g * d for g, d in zip(gates[image], deltas, strict=True))
        added = bias + sum(g * b for g, b in zip(gates[image], biases, strict=True))
        torch.testing.assert_close(found[image], F.linear(x[image], own, added), **close)
    without = made.linear(lambda name, x: gates)(LAYER, x, weight, None)
    torch.testing.assert_close(without, found - bias, **close)


def test_a_layer_without_experts_is_left_alone_and_its_gates_are_not_asked():
    def fails(name, x):
        raise AssertionError(name)

    x, weight = randn(IMAGES, TOKENS, N), randn(M, N)
    found = experts("factors")[0].linear(fails)("other", x, weight, None)
    assert torch.equal(found, F.linear(x, weight))


def test_the_task_that_counts_most_is_told_by_the_mean_of_all_layers():
    gates = {"a": torch.tensor([[0.9, 0.1], [0.2, 0.8]]), "b": torch.tensor([[0.0, 1.0], [0, 1]])}
    noted = Noted(lambda name, x: gates[name])
    assert noted("a", None) is gates["a"]
    assert noted.chosen().tolist() == [0, 1]
    noted("b", None)
    assert noted.chosen().tolist() == [1, 1]


def test_linear_layers_and_their_biases_are_told_by_name():
    block = "transformer.resblocks.3."
    assert bias_of(f"{block}attn.in_proj_weight") == f"{block}attn.in_proj_bias"
    assert bias_of(LAYER) == LAYER.replace("weight", "bias")
    assert is_linear(LAYER) and is_linear(f"{block}attn.out_proj.weight")
    assert not is_linear(f"{block}ln_1.weight") and not is_linear("proj")
