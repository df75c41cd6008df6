"""Least squares over all tasks' inputs: the sums that its closed forms are made of."""

from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.semidefinite import semidefinite_zero, solve_semidefinite
from tsv_bench.methods.observed.observations import Observed


class NormalEquations(NamedTuple):
    """The sums over tasks whose solution w of w a = b is nearest to each delta on its inputs.

    That is, w minimizes the sum of ||x (w - delta)^T||^2 over the tasks. All are in float64.
    """

    a: Float[Tensor, "n n"]  # the sum of g, a task's x^T x
    b: Float[Tensor, "m n"]  # the sum of delta g
    mean: Float[Tensor, "m n"]  # of the deltas
    zero: float  # up to which eigenvalues of a, at unit diagonal, are none

    def nearest_to(self, start: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """Return the solution that is ``start`` in directions that no task's inputs have."""
        return start + solve_semidefinite(self.b - start @ self.a, self.a, self.zero)

    def smallest(self) -> Float[Tensor, "m n"]:
        """Return the solution that is zero in directions that no task's inputs have."""
        return solve_semidefinite(self.b, self.a, self.zero)


def normal_equations(
    observed: Iterator[Observed], off_diagonal: float | int = 1.0, by_count: bool = True
) -> NormalEquations:
    """Return the sums of one layer; the entries of g beside its diagonal times ``off_diagonal``.

    With ``by_count`` each g is divided by the number of its inputs, if that is known. Raises
    ValueError if it is known of some tasks only.
    """
    a = b = total = None
    zero = 0.0
    counts: list[int | None] = []
    for task in observed:
        delta, g = task.delta.double(), task.gram.double()
        if g is task.gram:  # in float64 already: it is not ours to change
            g = g.clone()
        if off_diagonal != 1:
            diagonal = g.diagonal().clone()
            g *= off_diagonal
            g.diagonal().copy_(diagonal)
        if by_count and task.count is not None:
            g /= task.count
        zero = max(zero, semidefinite_zero(len(g), task.gram.dtype))
        counts.append(task.count)
        if a is None:
            a, b, total = g, delta @ g, delta.clone()
        else:
            a, b, total = a.add_(g), b.addmm_(delta, g), total.add_(delta)
    if by_count and len({count is None for count in counts}) > 1:
        raise ValueError(
            "the number of inputs is known of some tasks and not of others, so that they cannot "
            "be given the same weight. Gather the statistics of all tasks in the same way."
        )
    return NormalEquations(a, b, total / len(counts), zero)
