"""LiNeS, scaling by depth of what a method serves: https://arxiv.org/abs/2410.17146."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tsv_bench.methods.by_name import method_by_name
from tsv_bench.methods.entrywise.arithmetic import total
from tsv_bench.methods.knobs import check_not_negative
from tsv_bench.task_vectors.lazy import LazyVector, Part, ServedVectors, TaskVectors
from tsv_bench.task_vectors.merge import map_layers, merge_entries, scaled
from tsv_bench.task_vectors.places import relative_depths
from tsv_bench.task_vectors.streaming import stream_parts, watched

__all__ = ["lines"]


def lines(
    task_vectors: TaskVectors,
    *,
    base: str = "task_arithmetic",
    base_knobs: Mapping | None = None,
    beta: float | int = 0.5,
) -> ServedVectors:
    """Serve every task what ``base`` merges, times alpha + beta * depth of the layer's block.

    The depth is 0 in the first block of a stack, 1 in the last, and 0 outside of blocks. Alpha is
    the length of the sum of the task vectors, entries' magnitudes added up, over that of what base
    merges, over the number of tasks. ``base`` is a method that serves one vector, with its knobs in
    ``base_knobs``. Raises ValueError for knobs out of range, or another kind of base.
    """
    merge = method_by_name("base", base, "base_knobs", base_knobs)
    meaning = "how much more the layers of the last block count than those of the first"
    check_not_negative("beta", beta, meaning)
    if not task_vectors:
        return {}
    served = merge(task_vectors)
    merged, *others = served.values()
    if any(other is not merged for other in others):
        raise ValueError(
            f"base={base} serves each task its own vector; LiNeS scales one that is for all."
        )
    if not isinstance(merged, LazyVector):  # as of a single task with the method individual
        merged = map_layers(merged, lambda name, delta: delta)
    alpha = 1 / len(task_vectors)
    if base != "task_arithmetic":
        # This takes a pass of its own over both: lengths are those of whole vectors.
        of_merged = sum_of_magnitudes(merged)
        of_sum = sum_of_magnitudes(merge_entries(task_vectors.values(), total))
        alpha *= of_sum / of_merged if of_merged else 1.0
    depths = relative_depths(merged)

    def parts(name: str) -> Sequence[Part]:
        factor = alpha + beta * depths[name]
        return [scaled(part, factor) for part in merged.parts(name)]

    return dict.fromkeys(task_vectors, LazyVector([merged], parts))


def sum_of_magnitudes(vector: LazyVector) -> float:
    """Return the sum of the magnitudes of all entries, in float64."""

    def of(part: Part) -> Part:
        def compute(read: object) -> float:
            return float(part.compute(read).abs().double().sum())

        return replace(part, compute=compute)

    parts = [of(part) for name in vector for part in vector.parts(name)]
    return sum(found for _, _, found in watched(stream_parts(parts), len(parts), "magnitudes"))
