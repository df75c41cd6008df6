"""L-BFGS on functions whose minimum is known."""

import torch

from tsv_bench.linalg.quasi_newton import minimize


def test_the_minimum_of_a_quadratic_is_found():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    matrix = root.mT @ root + torch.eye(12)
    wanted = torch.randn(12, dtype=torch.float64, generator=generator)

    def quadratic(x):
        away = x - wanted
        return away @ matrix @ away / 2, matrix @ away

    start = torch.zeros(12)
    found = minimize(quadratic, start)
    # It ends at a gradient of 1e-9 or a decrease by 1e-12 of the value, sqrt of which is 1e-6.
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float64 and not start.any()
