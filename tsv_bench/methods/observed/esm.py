"""ESM, essential subspace merging: https://arxiv.org/abs/2602.20208."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.flat_product import flat_product
from tsv_bench.methods.knobs import (
    check_not_negative,
    check_patterns,
    check_positive,
    check_switch,
)
from tsv_bench.methods.matrixwise.tsv import tsv_merge
from tsv_bench.methods.observed.block_scaling import BlockScaled
from tsv_bench.methods.observed.essential_directions import essential_directions
from tsv_bench.methods.observed.observations import Observations, Observed
from tsv_bench.methods.ranks import check_rank_fraction, kept_rank
from tsv_bench.task_vectors.lazy import Part, ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices, matches
from tsv_bench.task_vectors.statistics import TaskStatistics

__all__ = ["esm"]

# Linear layers to which the released code gives no directions: projections of attention's outputs
# and of the tower's. Names as in open_clip and on Hugging Face.
BY_TRIPLETS = ("out_proj", "proj", "visual_projection")


def esm(
    task_vectors: TaskVectors,
    *,
    inputs: TaskStatistics,
    task_exponent: float | int = 2,
    value_exponent: float | int = 0.15,
    column_exponent: float | int = 2,
    layer_exponent: float | int = 2,
    factor: float | int = 2,
    rank_fraction: float | int | None = None,
    as_released: bool = True,
    by_triplets: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
) -> ServedVectors:
    """Serve every task layers merged in the directions of their outputs that the tasks change.

    ``rank_fraction`` is the share of a layer's outputs that every task keeps as directions; null is
    1 / number of tasks. The exponents make strong tasks, directions, input columns and layers
    stronger; 0 leaves them as they are. ``factor`` scales what is merged so. ``as_released`` takes
    a task's size as the released code does: `essential_directions`. Matrices that fit
    ``by_triplets`` (null: projections of attention's and the tower's outputs) or lack statistics
    are merged by TSV-M with the same share; ``exclude`` as in `tsv_merge`. All else is averaged.
    Raises ValueError for knobs out of range.
    """
    exponents = {
        "task_exponent": task_exponent,
        "value_exponent": value_exponent,
        "column_exponent": column_exponent,
        "layer_exponent": layer_exponent,
    }
    for knob, exponent in exponents.items():
        check_not_negative(knob, exponent, "the power of a ratio to the mean; 0 scales nothing")
    check_positive("factor", factor, "what layers with directions are multiplied by")
    check_rank_fraction(rank_fraction)
    check_switch("as_released", as_released)
    by_triplets = BY_TRIPLETS if by_triplets is None else by_triplets
    check_patterns("by_triplets", by_triplets)
    matrices = Matrices.of(exclude, split_qkv=False)
    others = tsv_merge(task_vectors, rank_fraction=rank_fraction, exclude=exclude)
    if not task_vectors:
        return {}
    seen, others = Observations(task_vectors, inputs), next(iter(others.values()))
    rule = partial(
        merge_directions,
        num_tasks=len(task_vectors),
        rank_fraction=rank_fraction,
        task_exponent=task_exponent,
        value_exponent=value_exponent,
        column_exponent=column_exponent,
        factor=factor,
        as_released=as_released,
    )

    def parts(name: str) -> Sequence[Part]:
        is_matrix = matrices.is_matrix(name, seen.vectors[0].shape(name))
        if not is_matrix or matches(name, by_triplets) or name not in seen.layers:
            return others.parts(name)
        return seen.parts(name, rule)

    merged = BlockScaled(seen.vectors, parts, matrices, layer_exponent)
    return dict.fromkeys(task_vectors, merged)


def merge_directions(
    observed: Iterator[Observed],
    num_tasks: int,
    rank_fraction: float | int | None,
    task_exponent: float | int,
    value_exponent: float | int,
    column_exponent: float | int,
    factor: float | int,
    as_released: bool,
) -> Float[Tensor, "m n"]:
    """Merge one layer's deltas in their essential directions.

    The outputs' directions and the deltas in them, of all tasks side by side, both get a flat
    spectrum at its mean: the tasks then do not interfere. A task has fewer directions than its
    share if its delta or its inputs have no more.
    """
    left, right, sizes = [], [], []
    exact = False
    for task in observed:
        m, n = task.delta.shape
        like, exact = task.delta, exact or task.delta.dtype == torch.float64
        found = essential_directions(task, kept_rank(m, num_tasks, rank_fraction), as_released)
        sizes.append(found.size if found else 0.0)
        if found and len(found.variances):  # inputs that are all zero leave none
            strengths = relative(found.variances, value_exponent)
            strengths = strengths / strengths.mean()
            left.append(found.outputs.mul_(strengths))
            right.append((found.inputs.mul_(strengths[:, None]), found.size))
    if not left:
        return torch.zeros(m, n, dtype=torch.float64, device=like.device)
    mean_size = sum(sizes) / len(sizes)
    v = torch.cat([rows * (size / mean_size) ** task_exponent for rows, size in right])
    right.clear()
    v *= relative(torch.linalg.vector_norm(v, dim=0), column_exponent)
    u = side_by_side(left)
    return flat_product(u, v, exact).mul_(factor)


def relative(values: Float[Tensor, " k"], exponent: float | int) -> Float[Tensor, " k"]:
    """Return the ratios of values to their mean, to a power."""
    return (values / values.mean()) ** exponent


def side_by_side(parts: list[Tensor]) -> Tensor:
    """Return matrices concatenated along their columns, each freed once it is copied."""
    whole = parts[0].new_empty(len(parts[0]), sum(part.shape[1] for part in parts))
    start = 0
    while parts:
        part = parts.pop(0)
        whole[:, start : start + part.shape[1]] = part
        start += part.shape[1]
    return whole
