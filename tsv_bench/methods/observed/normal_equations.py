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


class Sums:
    """The sums of one layer, made up task by task; see `normal_equations`."""

    def __init__(self, off_diagonal: float | int = 1.0, by_count: bool = True) -> None:
        self._off_diagonal, self._by_count = off_diagonal, by_count
        self._zero = 0.0
        self._counts: list[int | None] = []

    def add(self, task: Observed) -> None:
        """Add what one task has of the layer."""
        delta, g = task.delta.double(), task.gram.double()
        if g is task.gram:  # in float64 already: it is not ours to change
            g = g.clone()
        if self._off_diagonal != 1:
            diagonal = g.diagonal().clone()
            g *= self._off_diagonal
            g.diagonal().copy_(diagonal)
        if self._by_count and task.count is not None:
            g /= task.count
        self._zero = max(self._zero, semidefinite_zero(len(g), task.gram.dtype))
        if not self._counts:
            self._a, self._b, self._total = g, delta @ g, delta.clone()
        else:
            self._a.add_(g)
            self._b.addmm_(delta, g)
            self._total.add_(delta)
        self._counts.append(task.count)

    def equations(self) -> NormalEquations:
        """Return the sums. Raises ValueError if tasks cannot be given the same weight."""
        if self._by_count and len({count is None for count in self._counts}) > 1:
            raise ValueError(
                "the number of inputs is known of some tasks and not of others, so that they "
                "cannot be given the same weight. Gather the statistics of all tasks in the same "
                "way."
            )
        return NormalEquations(self._a, self._b, self._total / len(self._counts), self._zero)


def normal_equations(
    observed: Iterator[Observed], off_diagonal: float | int = 1.0, by_count: bool = True
) -> NormalEquations:
    """Return the sums of one layer; the entries of g beside its diagonal times ``off_diagonal``.

    With ``by_count`` each g is divided by the number of its inputs, if that is known. Raises
    ValueError if it is known of some tasks only.
    """
    sums = Sums(off_diagonal, by_count)
    for task in observed:
        sums.add(task)
    return sums.equations()
