"""Effective ranks and the energy of leading singular values, in float64."""

import pytest
import torch
from made_up.vectors import randn

from tsv_bench.analysis.measures import energy_shares, spectra

SHAPES = [(12, 12), (30, 10), (10, 30)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def test_ranks_of_flat_and_of_single_spectra():
    flat, single = torch.ones(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    single[0] = 3
    for rank in (spectra.effective_rank, spectra.stable_rank):
        torch.testing.assert_close(rank(torch.stack([flat, 5 * flat, single])),
                                   torch.tensor([8, 8, 1], dtype=torch.float64))  # fmt: skip
    # Two values of 3 : 1 have the entropy of a coin that shows heads with probability 3/4.
    two = torch.tensor([3.0, 1.0], dtype=torch.float64)
    assert float(spectra.effective_rank(two)) == pytest.approx(4 / 3**0.75)
    assert float(spectra.stable_rank(two)) == pytest.approx(10 / 9)


def test_energy_between_whole_ranks_is_linear():
    s = torch.tensor([3.0, 2.0, 1.0, 1.0], dtype=torch.float64).sqrt() * 2
    energy = spectra.energy_at_shares(s)
    at_ranks = torch.tensor([0, 3, 5, 6, 7], dtype=torch.float64) / 7
    for share, found in zip(energy_shares(), energy.tolist(), strict=True):
        below = min(int(4 * share), 3)
        expected = at_ranks[below] + (4 * share - below) * (at_ranks[below + 1] - at_ranks[below])
        assert found == pytest.approx(float(expected))


@pytest.mark.parametrize("size", [1e-20, 1, 1e15])
@every_shape
def test_singular_values_in_float32_are_nearly_exact(shape, size):
    delta = size * randn(*shape) * torch.logspace(0, -4, shape[1], dtype=torch.float64)
    found = spectra.singular_values(delta.float())
    exact = torch.linalg.svdvals(delta.float().double())
    # The Gram matrix in float64 leaves an error of the square root of 1e-16.
    torch.testing.assert_close(found / exact[0], exact / exact[0], rtol=0, atol=2e-8)
