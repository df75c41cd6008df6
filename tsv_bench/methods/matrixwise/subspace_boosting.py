"""Subspace Boosting: https://arxiv.org/abs/2506.16506."""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import singular_zero
from tsv_bench.linalg.svd import truncated_svd
from tsv_bench.methods.entrywise.arithmetic import total
from tsv_bench.methods.knobs import check_range
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import merge_layers

__all__ = ["subspace_boosting"]


def subspace_boosting(
    task_vectors: TaskVectors,
    *,
    boosting_threshold: float | int = 0.01,
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task the sum of the task vectors with its small singular values raised.

    The leading singular values that together reach ``boosting_threshold``, a share of the sum of
    all in [0, 1], stay. The others are raised to the last of these. Layers that are no matrices are
    summed; ``exclude`` and ``split_qkv`` as in `tsv_merge`. Raises ValueError for knobs out of
    range.
    """
    check_range(
        "boosting_threshold", boosting_threshold, 0, 1,
        "the share of the sum of singular values whose last one the smaller ones are raised to",
    )  # fmt: skip
    matrices = Matrices.of(exclude, split_qkv)
    rule = partial(boosted_sum, boosting_threshold=boosting_threshold)
    return dict.fromkeys(
        task_vectors,
        merge_layers(task_vectors.values(), rule, merge_other=total, matrices=matrices),
    )


def boosted_sum(
    deltas: Float[Tensor, "tasks m n"], boosting_threshold: float | int
) -> Float[Tensor, "m n"]:
    """Return the sum, its singular values at least the one whose running sum reaches the share."""
    merged = total(deltas)
    u, s, vh = truncated_svd(merged, min(merged.shape), "svd")
    before = int((s.cumsum(dim=0) < boosting_threshold * s.sum()).sum())
    lowest = s[min(before, len(s) - 1)]  # by rounding no running sum may reach a share of 1
    # Singular vectors of a zero singular value are arbitrary: it must not be raised.
    spanned = s > singular_zero(s.dtype) * s[:1]
    return u * s.clamp(min=lowest).mul(spanned) @ vh
