"""SLERP, spherical linear interpolation of two tasks: https://arxiv.org/abs/2403.13257."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.methods.knobs import check_num_tasks, check_range
from tsv_bench.task_vectors.lazy import (
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    lazy_vectors,
)

__all__ = ["slerp"]

NEARLY_PARALLEL = 0.9995  # cosine from which on, of either sign, interpolation is linear
COPIES = 4  # of a layer in memory at most: both deltas, one scaled, the result


def slerp(task_vectors: TaskVectors, *, t: float | int = 0.5) -> ServedVectors:
    """Serve both tasks a point between their task vectors, layer by layer on an arc.

    ``t`` is how far from the first task to the second, in [0, 1]: the one knob of all methods to
    which the tasks' order matters, unless it is 0.5. Raises ValueError for another t, or if there
    are other than two tasks.
    """
    check_range("t", t, 0, 1, "how far to go from the first task to the second")
    if not task_vectors:
        return {}
    check_num_tasks("slerp", 2, list(task_vectors))
    vectors = lazy_vectors(task_vectors.values())

    def parts(name: str) -> Sequence[Part]:
        def merge(_: None) -> Tensor:
            # An angle needs the whole layer; read here, so that few layers are in memory at once.
            first, second = (at_least_float32(vector[name]) for vector in vectors)
            return between(first, second, t)

        entries = COPIES * vectors[0].shape(name).numel()
        return [Part(name, 0, entries, lambda: None, merge)]

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def between(
    first: Float[Tensor, "..."], second: Float[Tensor, "..."], t: float | int
) -> Float[Tensor, "..."]:
    """Return a point on the arc: sin((1 - t) a) first + sin(t a) second, over sin a of their angle.

    It is linear, (1 - t) first + t second, if they are parallel but for `NEARLY_PARALLEL`, or if
    one is zero and has no direction.
    """
    near, far = 1 - t, t
    cosine = _cosine(first, second)
    if cosine is not None and abs(cosine) <= NEARLY_PARALLEL:
        angle = math.acos(cosine)
        near, far = (math.sin(share * angle) / math.sin(angle) for share in (near, far))
    return near * first + far * second


def _cosine(first: Tensor, second: Tensor) -> float | None:
    """Return the cosine of the angle between two layers, or None if one is zero."""
    lengths = [torch.linalg.vector_norm(x, dtype=torch.float64) for x in (first, second)]
    if not all(lengths):
        return None
    # Each at length 1 first: products of float32 may overflow or vanish.
    one, other = (
        x / length.to(x.dtype) for x, length in zip((first, second), lengths, strict=True)
    )
    return float((one * other).sum(dtype=torch.float64))
