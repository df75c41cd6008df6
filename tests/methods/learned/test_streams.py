"""Streams of tokens are what plain passes through whole networks make."""

import pytest
import torch
from made_up.small_suite import TASKS, SmallSuite

from tsv_bench.methods.learned import streams as module
from tsv_bench.methods.learned.streams import Streams
from tsv_bench.task_vectors.places import place_of
from tsv_bench.task_vectors.task_vector import apply

# float32's rounding: products are summed in another order where other images stand in a batch.
near = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return SmallSuite(tmp_path_factory.mktemp("streams"))


def of_block(vector, number):
    return {name: delta for name, delta in vector.items() if place_of(name).depth == number}


@pytest.mark.parametrize("at_once", [2**22, 1])
def test_a_stream_through_all_blocks_gives_the_networks_features(suite, at_once, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    monkeypatch.setattr(module, "EMBEDDED", 4)
    bench = suite.bench
    made, vectors = Streams(bench, TASKS), [suite.vectors[task] for task in TASKS]
    tokens = made.embedded(lambda task: of_block(vectors[task], None))
    for number in range(bench.num_blocks):
        for rows, vector in zip(made.rows, vectors, strict=True):
            made.advance(number, of_block(vector, number), tokens[rows])
    for task, rows, vector in zip(TASKS, made.rows, vectors, strict=True):
        weights = apply(bench.pretrained, vector, 1.0)
        found = bench.read_out(weights, tokens[rows])
        torch.testing.assert_close(found, bench.features(weights, bench.images(task)), **near)


def test_loss_and_gradient_are_autograds_in_any_parts(suite, monkeypatch):
    bench = suite.bench
    made, deltas = Streams(bench, TASKS), of_block(suite.vectors["a"], 1)
    outside = [of_block(suite.vectors[task], None) for task in TASKS]
    x, wanted = made.embedded(lambda task: outside[0]), made.embedded(lambda task: outside[task])
    weights = {n: w.requires_grad_(True) for n, w in made.added(deltas).items()}
    loss = (bench.run_block(weights, 1, x) - wanted).square().sum()
    expected = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    for at_once in (2**22, 5 * x[0].numel()):  # all images, and three parts
        monkeypatch.setattr(module, "AT_ONCE", at_once)
        assert made.loss(1, deltas, x, wanted) == pytest.approx(loss.item(), rel=1e-5)
        found, gradients = made.gradient(1, deltas, x, wanted)
        assert found.item() == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4 * loss.item())
