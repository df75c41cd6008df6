"""Regression towards an anchor, as written after the abstract of https://arxiv.org/abs/2605.12843."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.knobs import check_not_negative, check_switch
from tsv_bench.methods.observed.anchors import anchor_vector, check_anchor
from tsv_bench.methods.observed.normal_equations import normal_equations
from tsv_bench.methods.observed.observations import Observations, Observed, oriented
from tsv_bench.task_vectors.lazy import LazyVector, Part, ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import times
from tsv_bench.task_vectors.statistics import TaskStatistics

__all__ = ["anchored_regression"]


def anchored_regression(
    task_vectors: TaskVectors,
    *,
    inputs: TaskStatistics | None = None,
    anchor: str = "tsv_merge",
    anchor_alpha: float | int = 1.0,
    strength: float | int = 1.0,
    data_free: bool = False,
    exclude: Sequence[str] | None = None,
) -> ServedVectors:
    """Serve every task linear layers whose outputs are near the tasks' own, drawn to an anchor.

    The anchor is ``anchor_alpha`` times the vector of the method ``anchor``. A layer is the most
    probable one of a regression with a normal prior around it: its precision is ``strength`` times
    the mean diagonal of the sum of all tasks' x^T x. Strength 0 asks the anchor only where no image
    reaches; a large one gives the anchor. ``data_free`` puts delta^T delta in place of x^T x, for
    all matrices (but those of ``exclude``, as in `tsv_merge`), and needs no ``inputs``. Layers
    without either are the anchor's. Raises ValueError for knobs out of range.
    """
    check_anchor("anchor", anchor)
    check_not_negative("anchor_alpha", anchor_alpha, "the scale of the anchor")
    check_not_negative("strength", strength, "the anchor's weight beside the mean input's")
    check_switch("data_free", data_free)
    matrices = Matrices.of(exclude, split_qkv=False)
    if not task_vectors:
        return {}
    if inputs is None and not data_free:
        raise ValueError(
            "anchored regression needs statistics of the tasks' inputs. Gather them, or choose "
            "data_free=true, which puts the deltas in their place."
        )
    seen = (
        DeltasAsInputs(task_vectors, matrices) if data_free else Observations(task_vectors, inputs)
    )
    base = anchor_vector(anchor, task_vectors)
    scaled = times(base, anchor_alpha)

    def parts(name: str) -> Sequence[Part]:
        if name not in seen.layers or not matrices.is_matrix(name, seen.vectors[0].shape(name)):
            return scaled.parts(name)

        def rule(observed: Iterator[Observed]) -> Float[Tensor, "m n"]:
            sums = normal_equations(observed)
            precision = strength * sums.a.diagonal().mean()
            nearer = sums._replace(a=sums.a + precision * torch.eye(len(sums.a)).to(sums.a))
            middle = oriented(base, name, seen.axis(name)) * anchor_alpha
            return nearer._replace(b=sums.b + precision * middle).nearest_to(middle)

        return seen.parts(name, rule)

    return dict.fromkeys(task_vectors, LazyVector(seen.vectors, parts))


class DeltasAsInputs(Observations):
    """Deltas whose own delta^T delta stands for x^T x of the inputs."""

    def __init__(self, task_vectors: TaskVectors, matrices: Matrices) -> None:
        super().__init__(task_vectors, {})
        like = self.vectors[0]
        self.layers = frozenset(n for n in like if matrices.is_matrix(n, like.shape(n)))

    def axis(self, name: str) -> int:
        """Return 1: weights are taken as outputs by inputs."""
        return 1

    def each(self, name: str) -> Iterator[Observed]:
        """Yield every task's delta with delta^T delta, in float64."""
        for vector in self.vectors:
            delta = at_least_float32(vector[name])
            yield Observed(delta, delta.double().mT @ delta.double(), None)
