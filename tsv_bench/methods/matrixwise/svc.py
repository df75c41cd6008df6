"""Singular value calibration (SVC): https://arxiv.org/abs/2602.05536."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import at_unit_scale, singular_zero
from tsv_bench.linalg.svd import truncated_svd
from tsv_bench.methods.entrywise.arithmetic import total
from tsv_bench.methods.knobs import check_positive
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import merge_layers

__all__ = ["svc"]


def svc(
    task_vectors: TaskVectors,
    *,
    base_scale: float | int = 0.3,
    calibration_floor: float | int | None = None,
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task the scaled sum with singular values corrected for what tasks share.

    ``base_scale`` times the sum of the task vectors is calibrated. ``calibration_floor`` is the
    least that a task's coefficient counts; null is 1 / number of tasks. Layers that are no matrices
    are scaled sums; ``exclude`` and ``split_qkv`` as in `tsv_merge`. Raises ValueError for knobs
    out of range.
    """
    check_positive("base_scale", base_scale, "the factor of the sum that is calibrated")
    if calibration_floor is not None:
        meaning = "the least that a task's coefficient counts; null is 1 / number of tasks"
        check_positive("calibration_floor", calibration_floor, meaning)
    matrices = Matrices.of(exclude, split_qkv)
    floor = 1 / max(len(task_vectors), 1) if calibration_floor is None else calibration_floor
    return dict.fromkeys(
        task_vectors,
        merge_layers(
            task_vectors.values(),
            partial(at_unit_scale, partial(calibrated_sum, base_scale=base_scale, floor=floor)),
            merge_other=lambda deltas: total(deltas).mul_(base_scale),
            matrices=matrices,
        ),
    )


def calibrated_sum(
    deltas: Float[Tensor, "tasks m n"], base_scale: float | int, floor: float | int
) -> Float[Tensor, "m n"]:
    """Return the scaled sum, each singular value divided by the mean coefficient of its direction.

    A task's coefficient (Eq. 4) is the projection of the merged response to a left singular vector
    onto the task's own response, relative to the latter's length; at least ``floor``.
    """
    merged = total(deltas).mul_(base_scale)
    u, s, vh = truncated_svd(merged, min(merged.shape), "svd")
    coefficients = torch.zeros_like(s)
    for delta in deltas:  # one at a time: all responses together are as large as the deltas
        response = u.mT @ delta
        length = torch.linalg.vector_norm(response, dim=1)
        # A response that is only rounding must not become a coefficient.
        real = length > singular_zero(s.dtype) * torch.linalg.matrix_norm(delta)
        along = s * (vh * response).sum(dim=1)
        found = along / torch.where(real, length, 1).square() * real
        coefficients += found.clamp(min=floor)
    return u * (s * len(deltas) / coefficients) @ vh
