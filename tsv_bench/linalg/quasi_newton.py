"""Minimize a smooth function of a few thousand numbers by L-BFGS, with SciPy."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

ITERATIONS = 500


def minimize(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Float[Tensor, " n"],
    iterations: int = ITERATIONS,
) -> Float[Tensor, " n"]:
    """Return the point in float64 where L-BFGS ends, after so many iterations at most.

    ``function`` returns its value and its gradient. It is never above its value at ``start``.
    """
    from scipy.optimize import minimize as lbfgs  # here: its import takes a third of a second

    def value(x: Any) -> tuple[float, Any]:
        found, gradient = function(torch.from_numpy(x))
        return float(found), gradient.numpy()

    begin = start.detach().double().cpu()
    found = lbfgs(
        value, begin.numpy().copy(), jac=True, method="L-BFGS-B",
        options={"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 1e-12, "gtol": 1e-9},
    )  # fmt: skip
    return torch.from_numpy(found.x.copy())
