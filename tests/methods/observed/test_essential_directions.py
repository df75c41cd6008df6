"""Theorems of a task's essential directions, beside the singular vectors of x delta^T."""

import pytest
import torch
from made_up.vectors import close, randn
from torch.linalg import svd

from tsv_bench.methods.observed.essential_directions import essential_directions
from tsv_bench.methods.observed.observations import Observed

SHAPES = [(8, 20), (20, 8), (12, 12)]


def observed(delta, x, counted=True):
    return Observed(delta, x.mT @ x, len(x) if counted else None)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 5, 8])
def test_they_are_the_singular_vectors_of_the_outputs_changes(shape, rank):
    delta, x = randn(*shape), randn(50, shape[1]) + 1
    found = essential_directions(observed(delta, x), rank, as_released=True)
    _, s, vh = svd(x @ delta.mT, full_matrices=False)
    ratios = found.variances / found.variances[0]
    torch.testing.assert_close(ratios, (s[:rank] / s[0]) ** 2, rtol=1e-9, atol=1e-9)
    p = vh[:rank].mT
    cosines = (found.outputs * p).sum(dim=0)
    torch.testing.assert_close(cosines.abs(), torch.ones(rank).double(), **close)
    torch.testing.assert_close(found.inputs, found.outputs.mT @ delta, rtol=1e-8, atol=1e-8)


def test_no_other_directions_keep_more_of_the_outputs_changes():
    delta, x = randn(20, 8), randn(50, 8)
    p = essential_directions(observed(delta, x), 3, as_released=True).outputs
    other = svd(delta).U[:, :3]  # what TSV-M takes
    lost = [(x @ (delta - q @ q.mT @ delta).mT).norm() for q in (p, other)]
    assert lost[0] < lost[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_there_are_no_more_than_the_delta_and_the_inputs_have(shape):
    few = essential_directions(observed(randn(*shape), randn(3, shape[1])), 8, as_released=False)
    low = essential_directions(
        observed(randn(shape[0], 2) @ randn(2, shape[1]), randn(50, shape[1])), 8, False
    )
    assert [found.outputs.shape[1] for found in (few, low)] == [3, 2]
    for found in (few, low):
        eye = torch.eye(found.outputs.shape[1], dtype=torch.float64)
        torch.testing.assert_close(found.outputs.mT @ found.outputs, eye, rtol=1e-7, atol=1e-7)
        assert found.inputs.shape[0] == len(eye) == len(found.variances)


def padded(delta, x):
    """The released code's size: all its output directions, unit vectors for those that it lacks."""
    p = svd(x @ delta.mT, full_matrices=len(x) >= len(delta)).Vh.mT
    if len(x) < len(delta):
        units = torch.eye(len(delta), dtype=torch.float64)[:, len(x) :]
        p = torch.cat([p, units], dim=1)
    return (p.mT @ delta).norm()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [50, 20, 13, 8, 5, 1])
def test_the_size_is_that_of_the_released_code_padding_included(shape, count):
    delta, x = randn(*shape), randn(count, shape[1])
    found = essential_directions(observed(delta, x), 4, as_released=True)
    torch.testing.assert_close(found.size, float(padded(delta, x)), rtol=1e-6, atol=0)
    assert len(found.variances) == min(4, count)
    for other in (
        essential_directions(observed(delta, x), 4, as_released=False),
        essential_directions(observed(delta, x, counted=False), 4, as_released=True),
    ):
        torch.testing.assert_close(other.size, float(delta.norm()), rtol=1e-12, atol=0)


def test_a_task_that_changed_nothing_has_none():
    nothing = torch.zeros(6, 4, dtype=torch.float64)
    assert essential_directions(observed(nothing, randn(9, 4)), 2, as_released=True) is None


@pytest.mark.parametrize("exponent", [-100, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_scale_does_not_matter_in_float32(shape, exponent):
    delta, x = randn(*shape).float(), randn(50, shape[1]).float()
    found = essential_directions(observed(delta, x), 4, as_released=True)
    other = essential_directions(observed(delta * 2.0**exponent, x), 4, as_released=True)
    assert torch.equal(found.outputs, other.outputs)
    assert torch.equal(found.inputs * 2.0**exponent, other.inputs)
    assert found.size * 2.0**exponent == other.size
