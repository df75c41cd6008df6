"""Coefficients in a block move as Adam moves each of them, though few numbers are kept."""

import pytest
import torch
from made_up.vectors import close, random_vectors

from tsv_bench.methods.learned.block_coefficients import Block, block_coefficients
from tsv_bench.task_vectors.lazy import lazy_vectors

SHAPES = {"bias": (4,), "weight": (3, 5)}
SIZES = [4, 15]


def adam_by_definition(raw, gradients, rate):
    """Every coefficient with moments of its own; ``gradients`` maps a step's to theirs."""
    mean = square = torch.zeros_like(raw)
    for step, gradient in enumerate(gradients, start=1):
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        length = (square / (1 - 0.999**step)).sqrt() + 1e-8
        raw = raw - rate * mean / (1 - 0.9**step) / length
    return raw


@pytest.mark.parametrize("per", ["entry", "tensor", "task"])
def test_the_merged_block_is_that_of_coefficients_that_adam_moves_one_by_one(per):
    deltas = torch.randn(3, 19, dtype=torch.float64)
    deltas[:, 7], deltas[1, 8], deltas[0] = 0, 0, 1e-6 * deltas[0]
    # Some so small that Adam's eps counts: the moves of the three tasks then differ in size.
    gradients = torch.randn(6, 19, dtype=torch.float64) * torch.logspace(-9, 2, 19).double()
    gradients[:, 5] = 0
    block = Block({name: torch.Size(shape) for name, shape in SHAPES.items()})
    made = block_coefficients(block, deltas.clone(), per, start=0.3, learning_rate=0.05)
    torch.testing.assert_close(made.merged, 0.3 * deltas.sum(dim=0), **close)
    for gradient in gradients:
        made.step(gradient)
    if per == "entry":
        raw = torch.full_like(deltas, 0.3)
        merged = (adam_by_definition(raw, [g * deltas for g in gradients], 0.05) * deltas).sum(0)
    else:
        sizes = SIZES if per == "tensor" else [19]
        parts = []
        for d, g in zip(deltas.split(sizes, 1), gradients.split(sizes, 1), strict=True):
            raw = torch.full((3,), 0.3, dtype=torch.float64)
            parts.append(adam_by_definition(raw, [d @ step for step in g], 0.05) @ d)
        merged = torch.cat(parts)
    torch.testing.assert_close(made.merged, merged, rtol=1e-12, atol=1e-13)
    assert (merged - 0.3 * deltas.sum(dim=0)).abs().max() > 0.1


def test_entries_are_moved_some_columns_at_a_time(monkeypatch):
    deltas, gradient = torch.randn(3, 19), torch.randn(19)
    block, found = Block({"a": torch.Size([19])}), []
    for at_once in (2**20, 12):
        monkeypatch.setattr("tsv_bench.methods.learned.block_coefficients.BLOCK", at_once)
        made = block_coefficients(block, deltas.clone(), "entry", start=0.0, learning_rate=1.0)
        made.step(gradient)
        found.append(made.merged)
    assert torch.equal(*found) and found[0].all()


@pytest.mark.parametrize("scale", [1e-38, 1e-22, 1e-4, 1e3])
def test_squares_of_deltas_do_not_vanish(scale):
    """The first step moves a coefficient by the rate, or by less where eps is not small."""
    deltas, gradient = torch.full((2, 3), scale), torch.tensor([1e9, 0, -2.0])
    block = Block({"a": torch.Size([3])})
    made = block_coefficients(block, deltas, "entry", start=0.0, learning_rate=0.5)
    made.step(gradient)
    d, g = torch.tensor(scale).double(), gradient.double()
    expected = -2 * 0.5 * d * (d * g / ((d * g).abs() + 1e-8))
    torch.testing.assert_close(made.merged.double(), expected, rtol=1e-5, atol=1e-38)


def test_a_block_is_read_into_one_tensor_and_its_layers_are_views():
    vectors = random_vectors(2)
    chosen = {name: vectors["task0"][name].shape for name in ("proj", "logit_scale", "bias")}
    block = Block(chosen)
    deltas = block.read(lazy_vectors(vectors.values()), "cpu")
    assert deltas.shape == (2, 144 + 1 + 10) and deltas.dtype == torch.float64
    for vector, flat in zip(vectors.values(), deltas, strict=True):
        layers = block.layers(flat)
        assert list(layers) == list(chosen)
        for name, layer in layers.items():
            assert torch.equal(layer, vector[name])
            assert layer.untyped_storage().data_ptr() == deltas.untyped_storage().data_ptr()
        assert torch.equal(block.flat(layers), flat)
    half = [{"a": torch.ones(2, dtype=torch.float16)}, {"a": torch.ones(2)}]
    read = Block({"a": torch.Size([2])}).read(lazy_vectors(half), "cpu")
    assert read.dtype == torch.float32 and read.tolist() == [[1, 1], [1, 1]]
