"""TIES-Merging: https://arxiv.org/abs/2306.01708."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.knobs import check_choice, check_share
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.magnitudes import at_least
from tsv_bench.task_vectors.order_statistics import (
    LayerStatistics,
    magnitudes,
    rank_of,
    trim_thresholds,
)

__all__ = ["ties"]

MERGES = ("mean", "sum")
SCOPES = ("vector", "tensor")


def ties(
    task_vectors: TaskVectors,
    *,
    density: float | int = 0.2,
    merge: str = "mean",
    scope: str = "vector",
) -> ServedVectors:
    """Trim every task vector, elect a sign for every entry, merge what agrees; for all tasks.

    ``density`` is the share of entries that trimming keeps, in (0, 1]: of a whole task "vector"
    (the paper's), or of each layer's "tensor" (mergekit's), as ``scope`` says. ``merge`` says how
    agreeing entries become one: their "mean" (the paper's) or "sum". Raises ValueError for other
    values.
    """
    check_share("density", density, "the share of entries that trimming keeps")
    check_choice("merge", merge, MERGES, "a way to merge what agrees")
    check_choice("scope", scope, SCOPES, "that of which trimming keeps a share")
    vectors = lazy_vectors(task_vectors.values())
    thresholds = trimming(vectors, density, scope)
    weights = [vector.weight for vector in vectors]

    def parts(name: str) -> list:
        def rule(deltas: Float[Tensor, "tasks ..."]) -> Float[Tensor, "..."]:
            return merge_agreeing(deltas, thresholds(name), merge, weights)

        return blocks(vectors, name, rule)

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


def trimming(
    vectors: Sequence[LazyMapping], density: float | int, scope: str = "vector"
) -> Callable[[str], list[float]]:
    """Return a function of a layer's name that returns the tasks' thresholds there."""
    if density == 1:
        nothing = [0.0] * len(vectors)
        return lambda name: nothing
    if scope == "vector":
        # A reading of its own: a threshold is that of a whole task vector.
        found = trim_thresholds(vectors, density)
        return lambda name: found
    of_layers = LayerStatistics(vectors, magnitudes, lambda entries: [rank_of(density, entries)])
    return lambda name: of_layers.of(name)[:, 0].tolist()


def merge_agreeing(
    deltas: Float[Tensor, "tasks ..."],
    thresholds: list[float],
    merge: str,
    weights: Sequence[float | int] = (),
) -> Float[Tensor, "..."]:
    """Merge one layer without entries below their task's threshold or against the elected sign.

    The elected sign is that of the sum of the entries that trimming kept. Entries that cancel
    exactly elect none and become zero. ``weights``: those by which deltas are multiplied; a mean is
    divided by the weights of what agrees, as in mergekit, by their number if there are none.
    """
    kept = at_least(deltas, thresholds)
    sign = kept.sum(dim=0).sign_()
    agreeing = kept.mul_(sign).clamp_(min=0)  # magnitudes; in place, as memory is the bottleneck
    merged = agreeing.sum(dim=0).mul_(sign)
    if merge == "sum":
        return merged
    counts = agreeing.sign_()
    if any(weight != 1 for weight in weights):
        for count, weight in zip(counts, weights, strict=True):
            count.mul_(abs(weight))
        divisor = counts.sum(dim=0)
        return merged.div_(divisor.masked_fill_(divisor == 0, 1))
    return merged.div_(counts.sum(dim=0).clamp_(min=1))
