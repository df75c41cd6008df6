"""DC-Merge, which merges in bases that cover all tasks: https://arxiv.org/abs/2603.06242."""

import math
from collections.abc import Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.polar import polar_factor
from tsv_bench.linalg.precision import singular_zero
from tsv_bench.methods.entrywise.ties import merge_agreeing
from tsv_bench.methods.knobs import check_share
from tsv_bench.methods.matrixwise.tsv import merge_by_triplets
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors

__all__ = ["dc_merge"]


def dc_merge(
    task_vectors: TaskVectors,
    *,
    density: float | int = 0.001,
    svd: str = "gram",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task DC-Merge without smoothing: TIES on low-rank matrices in common bases.

    ``density`` is the share of a task matrix's entries in those bases that trimming keeps, in
    (0, 1]. Layers that are no matrices are averaged; ``svd``, ``exclude`` and ``split_qkv`` as in
    `tsv_merge`. Raises ValueError for knobs out of range.
    """
    meaning = "the share of entries, in the cover bases, that trimming keeps of each task"
    check_share("density", density, meaning)
    # Each task keeps 1 / number of tasks of the triplets: more would not fit into one basis.
    rule = partial(merge_in_cover_bases, density=density)
    return merge_by_triplets(task_vectors, None, svd, exclude, split_qkv, rule)


def merge_in_cover_bases(
    u: Float[Tensor, "tasks m k"],
    s: Float[Tensor, "tasks k"],
    vh: Float[Tensor, "tasks k n"],
    density: float | int,
) -> Float[Tensor, "m n"]:
    """Merge the singular triplets that each task keeps of one matrix.

    The bases are the polar factors of all left and of all right singular vectors. In these bases
    the tasks are trimmed and merged as by TIES. Only the blocks on the diagonal count, one a task:
    those of the basis vectors nearest to its singular vectors.
    """
    num_tasks, m, rank = u.shape
    n = vh.shape[2]
    # Singular vectors of a zero singular value are arbitrary: they must not rotate the bases.
    real = s > singular_zero(s.dtype) * s[:, :1]
    left = polar_factor((u * real[:, None]).transpose(0, 1).reshape(m, -1))
    right = polar_factor((vh * real[:, :, None]).reshape(-1, n))
    # The authors count all entries of square bases; those beyond these are zero.
    num_kept = max(1, math.floor(round(density * min(m, n) ** 2, 6)))
    thresholds, own = [], u.new_empty(num_tasks, num_tasks, rank, rank)
    for t in range(num_tasks):  # one at a time: in these bases a task is as large as its delta
        task = (left.mT @ u[t]) * s[t] @ (vh[t] @ right.mT)
        sizes = task.flatten().abs()
        thresholds.append(float(sizes.topk(min(num_kept, len(sizes))).values[-1]))
        blocks = task.reshape(num_tasks, rank, num_tasks, rank)
        own[t] = blocks.diagonal(dim1=0, dim2=2).movedim(-1, 0)
    merged = merge_agreeing(own, thresholds, "mean")
    rotated = left.reshape(m, num_tasks, rank).transpose(0, 1) @ merged
    return rotated.transpose(0, 1).reshape(m, -1) @ right
