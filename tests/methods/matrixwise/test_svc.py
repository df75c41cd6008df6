"""Theorems of singular value calibration (SVC), in float64."""

import pytest
import torch
from made_up.vectors import close, randn, random_vectors
from torch.linalg import qr, svd

from tsv_bench import methods
from tsv_bench.methods.matrixwise.svc import calibrated_sum

SHAPES = [(24, 24), (40, 24), (24, 40)]


def calibrated_by_definition(deltas, base_scale, floor):
    merged = base_scale * deltas.sum(0)
    u, s, vh = svd(merged, full_matrices=False)
    result = torch.zeros_like(merged)
    for left, value, right in zip(u.mT, s, vh, strict=True):
        whole = left @ merged
        ratios = [whole @ (left @ delta) / (left @ delta).square().sum() for delta in deltas]
        gamma = len(deltas) / sum(max(floor, float(ratio)) for ratio in ratios)
        result += gamma * value * torch.outer(left, right)
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("scale", "floor"), [(0.3, 0.25), (1, 1), (2.0, 0.01)])
def test_calibration_is_its_definition(shape, scale, floor):
    deltas = randn(4, *shape)
    torch.testing.assert_close(
        calibrated_sum(deltas, scale, floor),
        calibrated_by_definition(deltas, scale, floor),
        **close,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_what_all_tasks_share_counts_once(shape, scale):
    """Of T equal tasks the merged response is T times the scale too long, in every direction."""
    delta = randn(*shape)
    merged = calibrated_sum(delta.expand(5, *shape), scale, floor=0.2)
    torch.testing.assert_close(merged, delta, **close)


@pytest.mark.parametrize(("scale", "floor"), [(1.0, 1.0), (0.3, 0.25), (1.0, 0.1)])
def test_tasks_that_share_nothing_are_scaled_alike(scale, floor):
    """Own coefficient: the scale; those of the others, who have no response: the floor."""
    u, v = (qr(randn(side, 6)).Q.split(2, dim=1) for side in (24, 16))
    values = torch.tensor([3.0, 0.5], dtype=torch.float64)
    deltas = torch.stack(
        [(i + 1) * values * ui @ vi.mT for i, (ui, vi) in enumerate(zip(u, v, strict=True))]
    )
    gamma = 3 / (max(floor, scale) + 2 * floor)
    expected = gamma * scale * deltas.sum(0)
    torch.testing.assert_close(calibrated_sum(deltas, scale, floor), expected, **close)


def test_a_floor_of_one_only_ever_lowers_singular_values():
    deltas = randn(3, 1, 24, 16) + 0.5 * randn(3, 4, 24, 16)
    for together in deltas:
        before = svd(together.sum(0), full_matrices=False)
        turned = before.U.mT @ calibrated_sum(together, 1, 1) @ before.Vh.mT
        after = turned.diagonal()
        torch.testing.assert_close(turned, after.diag(), **close)  # the same singular vectors
        assert (after > 0).all() and (after <= before.S + 1e-10).all()
        assert (after < before.S - 1e-3).any()


def test_the_base_scale_does_not_matter_where_no_floor_binds():
    deltas = randn(24, 16) + 0.1 * randn(4, 24, 16)
    deltas = deltas + 10 * qr(randn(24, 16)).Q  # so that all tasks respond alike everywhere
    one, other = (calibrated_sum(deltas, scale, floor=1e-3) for scale in (0.3, 1.0))
    torch.testing.assert_close(one, other, **close)


def test_the_floor_is_an_equal_share_unless_given():
    vectors = random_vectors(4)
    default, given = methods.svc(vectors), methods.svc(vectors, calibration_floor=0.25)
    torch.testing.assert_close(dict(default["task0"]), dict(given["task0"]), rtol=0, atol=0)


def test_what_is_not_a_matrix_is_summed_and_scaled():
    vectors = random_vectors(3)
    merged, total = methods.svc(vectors)["task0"], methods.task_arithmetic(vectors)["task0"]
    for name in ("text_projection", "conv1.weight", "bias", "logit_scale"):
        torch.testing.assert_close(merged[name], 0.3 * total[name], **close)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("knob", ["base_scale", "calibration_floor"])
def test_knobs_of_calibration_out_of_range_are_refused(knob, value):
    with pytest.raises(ValueError, match=f"{knob}=.* is not a positive number"):
        methods.svc({}, **{knob: value})
