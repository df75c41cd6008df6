"""Theorems of Subspace Boosting and of singular value calibration (SVC), in float64."""

import pytest
import torch
from made_up.vectors import close, randn, random_vectors
from torch.linalg import qr, svd, svdvals

from tsv_bench import methods
from tsv_bench.methods.matrixwise.subspace_boosting import boosted_sum

SHAPES = [(24, 24), (40, 24), (24, 40)]
SHARES = [0, 0.01, 0.3, 0.9]


def boosted_by_definition(deltas, share):
    u, s, vh = svd(deltas.sum(0), full_matrices=False)
    running = 0.0
    for value in s:
        running += value
        if running / s.sum() >= share:
            lowest = value
            break
    return u @ torch.diag(torch.tensor([max(value, lowest) for value in s]).double()) @ vh


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", SHARES)
def test_boosting_is_its_definition(shape, share):
    deltas = randn(3, *shape)
    torch.testing.assert_close(
        boosted_sum(deltas, share), boosted_by_definition(deltas, share), **close
    )


def test_boosting_a_known_spectrum():
    """Of 8, 4, 2, 1 and 1 the first is half: so 0.5 raises to 8, a little more to 4."""
    u, v = qr(randn(9, 5)).Q, qr(randn(7, 5)).Q
    values = torch.tensor([8.0, 4, 2, 1, 1], dtype=torch.float64)
    deltas = (u * values @ v.mT)[None]
    for share, lowest in [(0.0, 8), (0.49, 8), (0.51, 4), (0.76, 2), (0.99, 1)]:
        merged = boosted_sum(deltas, share)
        torch.testing.assert_close(merged, u * values.clamp(min=lowest) @ v.mT, **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_boosting_without_threshold_makes_every_singular_value_the_largest(shape):
    deltas = randn(3, *shape)
    u, s, vh = svd(deltas.sum(0), full_matrices=False)
    torch.testing.assert_close(boosted_sum(deltas, 0), s[0] * u @ vh, **close)


def test_boosting_everything_up_to_all_of_it_is_task_arithmetic():
    vectors = random_vectors(3)
    boosted = methods.subspace_boosting(vectors, boosting_threshold=1)["task0"]
    for name, delta in methods.task_arithmetic(vectors)["task0"].items():
        torch.testing.assert_close(boosted[name], delta, **close)


@pytest.mark.parametrize("share", SHARES)
def test_boosting_never_lowers_and_keeps_what_leads(share):
    deltas = randn(3, 40, 24)
    before, after = svdvals(deltas.sum(0)), svdvals(boosted_sum(deltas, share))
    kept = after <= before + 1e-10
    assert (after >= before - 1e-10).all()
    assert kept[0] and (kept == kept.cummin(0).values).all()  # leading ones, then raised ones


def test_boosting_invents_no_directions():
    deltas = randn(2, 24, 1) @ randn(2, 1, 16)
    values = svdvals(boosted_sum(deltas, 0))
    level = svdvals(deltas.sum(0))[0]
    expected = torch.cat([level.expand(2), torch.zeros(14, dtype=torch.float64)])
    torch.testing.assert_close(values, expected, **close)


def test_boosting_sums_what_is_not_a_matrix():
    vectors = random_vectors(3)
    boosted, total = (
        m(vectors)["task0"] for m in (methods.subspace_boosting, methods.task_arithmetic)
    )
    for name in ("text_projection", "conv1.weight", "bias", "logit_scale"):
        torch.testing.assert_close(boosted[name], total[name], rtol=0, atol=0)
    assert not torch.allclose(boosted["proj"], total["proj"])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_boosting_threshold_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=r"boosting_threshold=.* is not in \[0, 1\]"):
        methods.subspace_boosting({}, boosting_threshold=share)
